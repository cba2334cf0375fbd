"""Images are found in folders and archives however their paths are written; broken ones are named."""

import gc
import gzip
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data_recipes.pipeline.contents import PackWriter, keep, reference
from data_recipes.pipeline.stores import TarStream, open_store
from data_recipes.readers.archives import tar_members
from prefrm import media
from prefrm.errors import ConfigError, DataError, DatasetError, MediaError
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
    store = open_store(str(tarred(tmp_path)))
    file, offset = store.place("x/a.png") or ("", 0)
    assert Path(file).read_bytes()[offset:].startswith(image("a"))


@pytest.mark.parametrize("write", [zipped, tarred])
def test_an_archive_is_a_store(tmp_path: Path, write: object) -> None:
    store = open_store(str(write(tmp_path)))  # type: ignore[operator]
    assert [store.read(store.name(path, None)) for path in ("x/a.png", "x/./y/../b.png")] == [
        image("a"),
        image("b"),
    ]
    with pytest.raises(MediaError, match=r"has no member x/c\.png"):
        store.read("x/c.png")
    with pytest.raises(MediaError, match="the limit is"):
        store.read("x/long.png")


def damage(data: bytes) -> bytes:
    """Other bytes in the place of the first member's."""
    start = data.index(b"x/a.png") + len("x/a.png")
    return data[:start] + bytes(20) + data[start + 20 :]


def encrypt(data: bytes) -> bytes:
    """The bits in both headers of the first member that call it encrypted."""
    central = data.index(b"PK\x01\x02")
    changed = bytearray(data)
    changed[6] |= 1
    changed[central + 8] |= 1
    return bytes(changed)


@pytest.mark.parametrize("spoil", [damage, encrypt])
def test_a_member_of_a_zip_that_cannot_be_read_takes_its_own_judgements_alone(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = zipped(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    write_image(tmp_path / "c.png")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "c.png", "x/c.png")
    rows = [{"prompt": "x", "chosen": "x/b.png", "rejected": f"x/{name}.png"} for name in "ac"]
    built = build("trl", tmp_path / "out", source=write_json(tmp_path / "rows.json", rows), images=path)
    assert (built.groups, built.info.left_out) == ({"train": 1}, {"broken image": 1})
    assert "x/a.png cannot be read from" in built.left_out[0]


def test_what_a_tar_describes_at_length_is_not_read(tmp_path: Path) -> None:
    """A header that `tarfile` would read whole: here a name of 2 MiB, compressed to 2 KiB."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**21
    with gzip.open(tmp_path / "images.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + b"x" * info.size)
    stream = open_store(str(tmp_path / "images.tar.gz"))
    assert isinstance(stream, TarStream)
    with pytest.raises(DatasetError, match="a header has 2097152 bytes; the limit is 1048576"):
        list(stream.members(lambda name: True))


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_several_tars_are_read_one_after_another(tmp_path: Path, ending: str) -> None:
    for name in "ab":
        write_tar(tmp_path / f"{name}.{ending}", {f"{name}.png": image(name)})
    stream = open_store(str(tmp_path / f"*.{ending}"))
    assert isinstance(stream, TarStream)
    assert dict(stream.members(lambda name: True)) == {f"{name}.png": image(name) for name in "ab"}


def test_the_members_of_a_tar_are_not_kept(tmp_path: Path) -> None:
    files = {f"{n:05d}.png": b"" for n in range(2000)}
    with open(write_tar(tmp_path / "images.tar.gz", files), "rb") as file:
        members = tar_members([file], "images.tar.gz")
        next(members)
        assert sum(1 for _ in members) == 1999
        gc.collect()
        assert sum(issubclass(type(each), tarfile.TarInfo) for each in gc.get_objects()) < 10


def test_a_folder_is_a_store_and_one_file_has_one_name(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "a.png")
    store = open_store(str(tmp_path))
    names = {
        store.name(path, Path("/elsewhere"))
        for path in ("x/a.png", "./x/../x/a.png", str(tmp_path / "x/a.png"))
    }
    (name,) = names
    assert store.read(name) == image("a")
    beside = open_store("")
    assert beside.read(beside.name("a.png", tmp_path / "x")) == image("a")
    with pytest.raises(DataError, match="without a folder on this machine; give the folder: --set images="):
        beside.name("a.png", None)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent is not a folder, a \.zip"):
        open_store(str(tmp_path / "absent"))


def test_images_of_rows_are_bytes_or_paths() -> None:
    assert reference(b"x") == b"x"
    assert reference({"bytes": b"x", "path": "a.png"}) == b"x"
    assert reference({"bytes": None, "path": "a.png"}) == "a.png"
    assert reference(Path("a.png")) == "a.png"
    assert reference({"bytes": b"", "path": "a.png"}) == b""
    for none in (None, {}, {"bytes": None, "path": None}, {"bytes": b"", "path": None}):
        assert reference(none) == b""
    for wrong in ("", "https://example.org/a.png", "a\0b", 3):
        with pytest.raises(DataError, match=r"expected an image|is a URL|NUL character"):
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
    assert (len(group.candidates), [c.weight for c in group.comparisons]) == (2, [2.0])
    assert max(sizes) == 0
