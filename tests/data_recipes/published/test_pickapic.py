"""Pick-a-Pic: P(image 0 is preferred) is label_0; rows without a label are no ties."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import ConfigError
from tests.data_recipes.sources import BROKEN, build, image, preferences, write_parquet, write_tar


def row(caption: str, first: str, second: str, label_0: float, **more: Any) -> dict[str, Any]:
    """A row of the published schema."""
    winner = {1.0: f"uid-{first}", 0.0: f"uid-{second}", 0.5: "tie"}[label_0]
    return {
        "are_different": True,
        "best_image_uid": winner,
        "caption": caption,
        "has_label": True,
        "image_0_uid": f"uid-{first}",
        "image_0_url": "https://example.org/0.png",
        "image_1_uid": f"uid-{second}",
        "image_1_url": "https://example.org/1.png",
        "jpg_0": BROKEN if first == "broken" else image(first),
        "jpg_1": BROKEN if second == "broken" else image(second),
        "label_0": label_0,
        "label_1": 1.0 - label_0,
        "model_0": "stabilityai/stable-diffusion-2-1",
        "model_1": "stabilityai/stable-diffusion-xl",
        "ranking_id": 1,
        "user_id": 7,
        "num_example_per_prompt": 2,
        "__index_level_0__": 0,
        **more,
    }


def test_rows_of_the_published_parquet_files(tmp_path: Path) -> None:
    rows = [
        row("a cat", "a", "b", 1.0),
        row("a cat", "b", "c", 0.0),
        row("a  Cat ", "b", "a", 0.0),  # again for a, under the same prompt but for spaces and case
        row("a cat", "a", "c", 0.5),
        row("a cat", "a", "d", 0.5, has_label=False),  # not labelled: not a tie
        row("a cat", "d", "broken", 1.0),
        row("a dog", "a", "a", 0.5),
        row("a dog", "a", "b", 1.0, best_image_uid="uid-b"),
    ]
    write_parquet(tmp_path / "data" / "train-00000-of-00001-abc.parquet", rows)
    write_parquet(tmp_path / "data" / "test_unique-00000-of-00001-abc.parquet", [row("a cow", "e", "f", 0.0)])
    write_parquet(tmp_path / "data" / "test-00000-of-00001-abc.parquet", [row("a cow", "f", "e", 1.0)] * 2)
    built = build("pickapic", tmp_path / "out", source=tmp_path)
    assert preferences(tmp_path / "out", "a", "b", "c") == {
        ("a cat", "a", "b"): (1.0, 2.0),
        ("a cat", "b", "c"): (0.0, 1.0),
        ("a cat", "a", "c"): (0.5, 1.0),
    }
    assert preferences(tmp_path / "out", "e", "f", split="test") == {("a cow", "e", "f"): (0.0, 1.0)}
    counts = built.info.splits["train"]
    assert (counts.groups, counts.candidates, counts.strict, counts.ties) == (1, 3, 2, 1)
    assert counts.left_out == {
        "broken image": 1,
        "identical candidates": 1,
        "label against best_image_uid": 1,
        "not labelled": 1,
    }
    assert built.left_out[0].startswith("record data/train-00000-of-00001-abc.parquet:5: ")
    assert "MIT" in built.info.licence and "pickapic" in built.info.source


def test_the_webdataset_mirror_says_the_same(tmp_path: Path) -> None:
    members = {
        "0.jpg_0.jpg": image("a"),
        "0.jpg_1.jpg": image("b"),
        "0.label_0.txt": b"0.0",
        "0.label_1.txt": b"1.0",
        "0.original_prompt.txt": b"a cat",
        "1.jpg_0.jpg": image("b"),
        "1.jpg_1.jpg": image("c"),
        "1.label_0.txt": b"0.5",
        "1.label_1.txt": b"0.5",
        "1.original_prompt.txt": b"a cat",
    }
    build("pickapic", tmp_path / "out", source=write_tar(tmp_path / "00000.tar", members))
    assert preferences(tmp_path / "out", "a", "b", "c") == {
        ("a cat", "a", "b"): (0.0, 1.0),
        ("a cat", "b", "c"): (0.5, 1.0),
    }


def test_the_evaluation_split_is_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluation must be one of unique, all; received 'both'"):
        build("pickapic", tmp_path / "out", source=tmp_path, evaluation="both")
