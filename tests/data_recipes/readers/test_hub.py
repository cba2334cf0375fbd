"""Datasets on the Hub, through the real `datasets` and `huggingface_hub` and a hub on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_recipes.pipeline.stores import TarStream, open_store
from data_recipes.plan import InterruptedBuild
from data_recipes.readers import read_source
from prefrm.data import push_dataset
from prefrm.errors import ConfigError, DatasetError
from tests.data_recipes.sources import (
    build,
    image,
    preferences,
    write_image,
    write_json,
    write_jsonl,
    write_parquet,
    write_tar,
)
from tests.hub import Hub, running_hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache") as hub:
        yield hub


def pick(caption: str, first: str, second: str, label_0: float) -> dict[str, object]:
    return {
        "caption": caption,
        "jpg_0": image(first),
        "jpg_1": image(second),
        "label_0": label_0,
        "label_1": 1 - label_0,
        "has_label": True,
    }


def test_a_parquet_dataset_is_streamed_shard_by_shard(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "repository"
    for n in range(2):
        write_parquet(
            folder / "data" / f"train-0000{n}-of-00002.parquet", [pick("a cat", f"a{n}", f"b{n}", 1.0)]
        )
    write_parquet(folder / "data" / "test_unique-00000-of-00001.parquet", [pick("a dog", "c", "d", 0.0)])
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [pick("a dog", "d", "c", 0.0)])
    write_parquet(folder / "data" / "extra-00000-of-00001.parquet", [pick("a dog", "d", "c", 0.0)])
    write_parquet(folder / "data" / "eval-00000-of-00001.parquet", [pick("a fox", "e", "f", 0.0)])
    sha = hub.commit("datasets/org/pick", folder)
    parts = read_source("hf://org/pick")
    assert sorted((part.name, part.split, part.stamp) for part in parts) == [
        ("eval", "validation", sha),
        ("test", "test", sha),
        ("train-00000", "train", sha),
        ("train-00001", "train", sha),
    ]
    assert "hf://org/pick: splits skipped" in caplog.text and "extra, test_unique" in caplog.text
    parts = [part for part in parts if part.split == "train"]
    assert [row["caption"] for _, row in parts[1].read(0) if isinstance(row, dict)] == ["a cat"]
    assert list(parts[1].read(1)) == []
    built = build("pickapic", tmp_path / "out", source="hf://org/pick")
    assert built.groups == {"train": 2, "test": 1}
    assert preferences(tmp_path / "out", "c", "d", split="test") == {("a dog", "c", "d"): (0.0, 1.0)}
    assert preferences(tmp_path / "out", "a0", "b0", "a1", "b1") == {
        ("a cat", "a0", "b0"): (1.0, 1.0),
        ("a cat", "a1", "b1"): (1.0, 1.0),
    }


def test_image_features_come_undecoded(hub: Hub, tmp_path: Path) -> None:
    row = {"prompt": "a cat", "chosen": image("b"), "rejected": image("a"), "other": 1}
    write_parquet(tmp_path / "repository" / "train.parquet", [row], images=("chosen", "rejected"))
    hub.commit("datasets/org/trl", tmp_path / "repository", branch="v2")
    build("trl", tmp_path / "out", source="hf://org/trl@v2")
    assert preferences(tmp_path / "out", "a", "b") == {("a cat", "a", "b"): (0.0, 1.0)}


def test_json_beside_pieces_of_a_compressed_tar(hub: Hub, tmp_path: Path) -> None:
    """The images of HPDv3 are streamed; the archive is not kept."""
    folder = tmp_path / "repository"
    rows = [{"prompt": "a cat", "path1": "images/a.png", "path2": "images/b.png", "choice_dist": [3, 1]}]
    write_json(folder / "train.json", rows)
    write_json(folder / "benchmark" / "benchmark_Animals.json", [{"prompt": "a cat"}])
    whole = write_tar(tmp_path / "images.tar.gz", {f"images/{n}.png": image(n) for n in "cab"}).read_bytes()
    for n, data in enumerate((whole[:100], whole[100:])):
        (folder / f"images.tar.gz.0{n}").write_bytes(data)
    hub.commit("datasets/org/hpdv3", folder)
    hub.commit("datasets/org/branches", folder, branch="feature/x")
    build("hpdv3", tmp_path / "out", source="hf://org/hpdv3")
    assert preferences(tmp_path / "out", "a", "b") == {("a cat", "a", "b"): (0.75, 4.0)}
    with pytest.raises(
        ConfigError, match=r"hf://org/hpdv3 has no file \*\.zip; give the pattern of its archives"
    ):
        build("hpdv3", tmp_path / "zip", source="hf://org/hpdv3", images="hf://org/hpdv3/*.zip")
    build("hpdv3", tmp_path / "branch", source="hf://org/branches@feature/x")
    assert preferences(tmp_path / "branch", "a", "b") == {("a cat", "a", "b"): (0.75, 4.0)}
    cached = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert "train.json" in cached
    assert not cached & {"images.tar.gz.00", "benchmark_Animals.json"}


def test_the_webdataset_mirror_of_pickapic(hub: Hub, tmp_path: Path) -> None:
    members = {
        "0.jpg_0.jpg": image("a"),
        "0.jpg_1.jpg": image("b"),
        "0.label_0.txt": b"0.0",
        "0.label_1.txt": b"1.0",
        "0.original_prompt.txt": b"a cat",
    }
    write_tar(tmp_path / "repository" / "00000.tar", members)
    hub.commit("datasets/org/mirror", tmp_path / "repository")
    build("pickapic", tmp_path / "out", source="hf://org/mirror")
    assert preferences(tmp_path / "out", "a", "b") == {("a cat", "a", "b"): (0.0, 1.0)}


def test_columns_that_are_wanted_are_named_beside_those_that_are_there(hub: Hub, tmp_path: Path) -> None:
    write_parquet(tmp_path / "repository" / "train.parquet", [{"text": "a cat", "left": b"x"}])
    hub.commit("datasets/org/other", tmp_path / "repository")
    with pytest.raises(DatasetError, match=r"no column 'chosen'; .*; the columns of train are text, left"):
        build("trl", tmp_path / "out", source="hf://org/other")


def test_paths_in_a_dataset_of_the_hub_lead_into_its_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to no file of this machine, whatever somebody has written there."""
    secret = write_image(tmp_path / "here" / "secret.png")
    monkeypatch.chdir(secret.parent)
    rows = [
        {"prompt": "a cat", "chosen": "images/a.png", "rejected": "images/b.png"},
        *(
            {"prompt": "a cat", "chosen": "images/a.png", "rejected": name}
            for name in (str(secret), "secret.png")
        ),
        {"prompt": "a cat", "chosen": "images/a.png", "rejected": "../here/secret.png"},
    ]
    folder = tmp_path / "repository"
    write_jsonl(folder / "train.jsonl", rows)
    for name in "ab":
        write_image(folder / "images" / f"{name}.png")
    hub.commit("datasets/org/paths", folder)
    built = build("trl", tmp_path / "out", source="hf://org/paths")
    assert preferences(tmp_path / "out", "a", "b") == {("a cat", "a", "b"): (1.0, 1.0)}
    assert built.info.left_out == {"broken image": 3}
    assert "hf://org/paths has no file secret.png" in "".join(built.left_out)


def test_a_hub_that_does_not_answer_breaks_no_image(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository"
    for name in "ab":
        write_image(folder / f"{name}.png")
    hub.commit("datasets/org/images", folder)
    rows = [{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png"}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    hub.private.add("datasets/org/images")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(InterruptedBuild, match="run the same command again to resume"):
        build("trl", tmp_path / "out", source=source, images="hf://org/images")
    hub.private.clear()
    build("trl", tmp_path / "out", source=source, images="hf://org/images")
    assert preferences(tmp_path / "out", "a", "b") == {("a cat", "a", "b"): (1.0, 1.0)}


def test_a_dataset_is_apart_from_one_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "chosen": image(f"{n}a"), "rejected": image(f"{n}b")}
        for n, prompt in enumerate("xy")
    ]
    build("trl", tmp_path / "first", source=write_parquet(tmp_path / "first.parquet", rows[:1]))
    push_dataset(tmp_path / "first", "org/first")
    source = write_parquet(tmp_path / "both.parquet", rows)
    built = build("trl", tmp_path / "out", source=source, apart_from=["hf://org/first"])
    assert built.info.left_out == {"also in hf://org/first": 1}
    assert list(built.info.apart_from) == ["hf://org/first"]


@pytest.mark.parametrize("revision", ["", "@v2", "@refs/convert/parquet"])
def test_images_of_the_hub_are_files_or_archives_at_a_revision(
    hub: Hub, tmp_path: Path, revision: str
) -> None:
    write_tar(tmp_path / "repository" / "x" / "images.tar.gz", {"a.png": image("a")})
    hub.commit("datasets/org/images", tmp_path / "repository", branch=revision[1:] or "main")
    spec = f"hf://org/images{revision}"
    stream = open_store(f"{spec}/x/*.tar.gz")
    assert isinstance(stream, TarStream)
    assert dict(stream.members(lambda name: True)) == {"a.png": image("a")}
    assert open_store(spec).read("x/images.tar.gz")


@pytest.mark.parametrize("source", ["hf://org/absent", "hf://org"])
def test_what_the_hub_does_not_have_is_named(hub: Hub, source: str) -> None:
    with pytest.raises(DatasetError, match=source) as caught:
        read_source(source)
    assert "\n" not in str(caught.value)
