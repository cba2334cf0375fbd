"""GenAI-Bench: "both bad" is a tie, the same pair recurs with opposite votes, and two splits overlap."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import ConfigError
from tests.data_recipes.sources import BROKEN, build, groups_of, image, preferences, write_parquet


def row(prompt: str, left: bytes, right: bytes, vote: str | None) -> dict[str, Any]:
    """A row of the configuration image_generation."""
    return {
        "prompt": prompt,
        "left_model": "SDXL",
        "left_image": left,
        "right_model": "Playground v2",
        "right_image": right,
        "vote_type": vote,
    }


a, b, c, d = map(image, "abcd")
ROWS = [
    row("a cute dog is playing a ball", a, b, "leftvote"),
    row("A cute dog  is playing a ball", b, a, "leftvote"),  # another user saw them the other way round
    row("a cute dog is playing a ball", a, b, "leftvote"),
    row("a cute dog is playing a ball", b, c, "rightvote"),
    row("a cow", a, d, "tievote"),
    row("a cat", c, d, "bothbad_vote"),
    row("a cat", c, a, None),
    row("a cat", c, BROKEN, "leftvote"),
    row("a cat", c, a, "both_good"),  # not a vote of the schema
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {
        "image_generation/test-00000-of-00001.parquet": ROWS,
        "image_generation/test_v1-00000-of-00001.parquet": [row("a cat", a, b, "rightvote")],
    }
    for name, rows in files.items():
        write_parquet(tmp_path / "in" / name, rows, images=("left_image", "right_image"))
    edit = [{"source_prompt": "a cat", "vote_type": "leftvote"}]
    write_parquet(tmp_path / "in" / "image_edition" / "test-00000-of-00001.parquet", edit)
    return tmp_path / "in"


def test_votes_of_one_version(source: Path, tmp_path: Path) -> None:
    built = build("genai_bench", tmp_path / "out", source=source, shares=(0.1, 0.1))
    assert preferences(tmp_path / "out", *"abcd", split="test") == {
        ("a cute dog is playing a ball", "a", "b"): (round(2 / 3, 12), 3.0),
        ("a cute dog is playing a ball", "b", "c"): (0.0, 1.0),
        ("a cow", "a", "d"): (0.5, 1.0),
        ("a cat", "c", "d"): (0.5, 1.0),
    }
    counts = built.info.splits["test"]
    assert (counts.strict, counts.ties, counts.contradictory) == (2, 2, 1)
    assert counts.left_out == {"bad row": 1, "broken image": 1, "not labelled": 1}
    assert built.groups == {"test": 3}
    tags = {group.prompt: group.tags for group in groups_of(tmp_path / "out", "test")}
    assert (tags["a cow"], tags["a cat"]) == ({}, {"vote": "both bad"})
    build("genai_bench", tmp_path / "v1", source=source, version="test_v1")
    assert preferences(tmp_path / "v1", *"ab", split="test") == {("a cat", "a", "b"): (0.0, 1.0)}


def test_a_file_of_the_other_version_is_refused(source: Path, tmp_path: Path) -> None:
    file = source / "image_generation" / "test_v1-00000-of-00001.parquet"
    with pytest.raises(ConfigError, match="version=test is not in"):
        build("genai_bench", tmp_path / "out", source=file)
