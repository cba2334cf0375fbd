"""Images are found in folders and archives however their paths are written; broken ones are named."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from data_recipes.pipeline.images import PackWriter, keep, reference
from data_recipes.pipeline.stores import open_images
from prefrm import media
from prefrm.errors import ConfigError, DataError, MediaError
from tests.data_recipes.sources import BROKEN, build, groups_of, image, write_image, write_json, write_tar

MEMBERS: Mapping[str, bytes] = {
    "./x/a.png": image("a"),
    "x/b.png": image("b"),
    "x/long.png": bytes(2**20 * 20 + 1),
}


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return folder / "images.zip"


def tarred(folder: Path) -> Path:
    return write_tar(folder / "images.tar", MEMBERS)


def test_members_of_an_uncompressed_tar_stay_where_they_are(tmp_path: Path) -> None:
    store = open_images(str(tarred(tmp_path)))
    file, offset = store.place("x/a.png") or ("", 0)
    assert Path(file).read_bytes()[offset:].startswith(image("a"))


@pytest.mark.parametrize("write", [zipped, tarred])
def test_an_archive_is_a_store(tmp_path: Path, write: object) -> None:
    store = open_images(str(write(tmp_path)))  # type: ignore[operator]
    assert [store.read(store.name(path, None)) for path in ("x/a.png", "x/./y/../b.png")] == [
        image("a"),
        image("b"),
    ]
    with pytest.raises(MediaError, match=r"has no member x/c\.png"):
        store.read("x/c.png")
    with pytest.raises(MediaError, match="the limit is"):
        store.read("x/long.png")


def test_a_folder_is_a_store_and_one_file_has_one_name(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "a.png")
    store = open_images(str(tmp_path))
    names = {
        store.name(path, Path("/elsewhere"))
        for path in ("x/a.png", "./x/../x/a.png", str(tmp_path / "x/a.png"))
    }
    (name,) = names
    assert store.read(name) == image("a")
    beside = open_images("")
    assert beside.read(beside.name("a.png", tmp_path / "x")) == image("a")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent is not a folder, a \.zip"):
        open_images(str(tmp_path / "absent"))


def test_images_of_rows_are_bytes_or_paths() -> None:
    assert reference(b"x") == b"x"
    assert reference({"bytes": b"x", "path": "a.png"}) == b"x"
    assert reference({"bytes": None, "path": "a.png"}) == "a.png"
    assert reference(Path("a.png")) == "a.png"
    for wrong in (None, "", {"bytes": None, "path": None}, "https://example.org/a.png", "a\0b", 3):
        with pytest.raises(DataError, match=r"no image in the place|is a URL|NUL character"):
            reference(wrong)  # type: ignore[arg-type]


def test_an_image_is_kept_once_and_checked(tmp_path: Path) -> None:
    pack = PackWriter(tmp_path)
    kept = [keep(image(name), pack) for name in "aba"]
    assert kept[0] == kept[2]
    assert [media.digest(image(name)) for name in "ab"] == [kept[0].digest, kept[1].digest]
    data = Path(kept[1].file).read_bytes()
    assert data[kept[1].offset :] == image("b")
    assert len(data) == kept[0].length + kept[1].length
    pack.close()
    broken = keep(BROKEN, pack, "x/a.png")
    assert (broken.digest, broken.problem.split(":")[0]) == ("", "x/a.png")


def test_copies_of_an_image_are_one_candidate_and_files_stay_where_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
    write_image(tmp_path / "copy.png", "a")
    rows = [
        {"prompt": "x", "chosen": "a.png", "rejected": "b.png"},
        {"prompt": "x", "chosen": "copy.png", "rejected": "b.png"},
    ]
    sizes: list[int] = []

    def look(stage: str, done: int, total: int | None) -> None:
        packs = (tmp_path / "out" / ".building").rglob("*.pack")
        sizes.append(sum(os.path.getsize(path) for path in packs))

    build("trl", tmp_path / "out", source=write_json(tmp_path / "rows.json", rows), progress=look)
    (group,) = groups_of(tmp_path / "out")
    assert (len(group.images), [c.weight for c in group.comparisons]) == (2, [2.0])
    assert max(sizes) == 0
