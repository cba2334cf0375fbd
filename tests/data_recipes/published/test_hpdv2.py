"""HPDv2: train has pairs under one of two names of a column, test has rankings of which 1 is the best."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data_recipes.sources import (
    build,
    groups_of,
    image,
    preferences,
    write_image,
    write_json,
    write_tar,
)
from tests.hub import Hub, running_hub


def pair(prompt: str, first: str, second: str, preference: list[int], column: str) -> dict[str, Any]:
    """A row of train.json."""
    return {
        "human_preference": preference,
        "prompt": prompt,
        column: [f"{first}.png", f"{second}.png"],
    }


TRAIN = [
    pair("a cat", "a", "b", [1, 0], "file_path"),
    pair("a cat", "c", "b", [0, 1], "image_path"),
    pair("A cat", "b", "a", [1, 0], "file_path"),  # contradicts the first
    pair("a cat", "broken", "a", [1, 0], "file_path"),
    pair("a cat", "a", "d", [0, 0], "file_path"),
    pair("a dog", "a", "d", [1, 0], "file_path"),  # its prompt is in the test split
]
TEST = [
    {
        "prompt": "A dog",
        "image_path": ["e.png", "f.png", "broken.png", "a.png", None],
        "rank": [2, 1, 3, 4, 5],
        "raw_annotations": [
            {"rank": [1, 2, 3, 4, 5], "user_hash": "u"},
            {"rank": [2, 1, 3, 4, 5], "user_hash": "v"},
            {"rank": [2, 1, 4, 3, 5], "user_hash": "v"},
            {"rank": [3, 2, 4, 1, 5], "user_hash": "w"},
        ],
    }
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "HPDv2"
    write_json(folder / "train.json", TRAIN)
    write_json(folder / "test.json", TEST)
    write_json(folder / "benchmark" / "anime.json", ["a prompt of the benchmark"])
    for name in ("a", "b", "c", "d", "broken"):
        write_image(folder / "train" / f"{name}.png")
    for name in ("e", "f", "broken"):
        write_image(folder / "test" / f"{name}.png")
    # Another image than that of the same name in train.
    write_image(folder / "test" / "a.png", "g")
    return folder


def test_pairs_and_the_consensus(source: Path, tmp_path: Path) -> None:
    built = build("hpdv2", tmp_path / "out", source=source)
    assert preferences(tmp_path / "out", *"abcd") == {
        ("a cat", "a", "b"): (0.5, 2.0),
        ("a cat", "b", "c"): (1.0, 1.0),
    }
    assert preferences(tmp_path / "out", *"efg", split="test") == {
        ("A dog", "e", "f"): (0.0, 1.0),
        ("A dog", "e", "g"): (1.0, 1.0),
        ("A dog", "f", "g"): (1.0, 1.0),
    }
    assert built.info.splits["train"].contradictory == 1
    assert {name: counts.left_out for name, counts in built.info.splits.items()} == {
        "train": {"broken image": 1, "in the test split": 1, "no votes": 1},
        "test": {"broken image": 2},
    }
    assert sorted(groups_of(tmp_path / "out", "test")[0].quality or ()) == [-4.0, -2.0, -1.0]


def test_annotators_give_shares_of_votes(source: Path, tmp_path: Path) -> None:
    built = build("hpdv2", tmp_path / "out", source=source / "test.json", labels="annotators")
    assert built.groups == {"test": 1}
    assert preferences(tmp_path / "out", *"efg", split="test") == {
        ("A dog", "e", "f"): (0.25, 4.0),
        ("A dog", "e", "g"): (0.75, 4.0),
        ("A dog", "f", "g"): (0.75, 4.0),
    }
    assert groups_of(tmp_path / "out", "test")[0].quality is None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache") as hub:
        yield hub


def test_on_the_hub_each_split_has_an_archive(hub: Hub, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write_json(folder / "train.json", TRAIN)
    write_json(folder / "test.json", TEST)
    write_tar(folder / "train.tar.gz", {f"./train/{name}.png": image(name) for name in "abcd"})
    write_tar(folder / "test.tar.gz", {f"test/{name}.png": image(name) for name in "ef"})
    write_tar(folder / "benchmark" / "benchmark_imgs" / "GLIDE.tar.gz", {"00000.jpg": image("x")})
    hub.commit("datasets/org/hpdv2", folder)
    build("hpdv2", tmp_path / "out", source="hf://org/hpdv2")
    assert preferences(tmp_path / "out", *"abcd")["a cat", "b", "c"] == (1.0, 1.0)
    assert preferences(tmp_path / "out", *"ef", split="test") == {("A dog", "e", "f"): (0.0, 1.0)}
    assert "benchmark/benchmark_imgs/GLIDE.tar.gz" not in hub.pulled
