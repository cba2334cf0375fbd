"""Rapidata: shares stay soft, the axes of one pair disagree, and null is no vote."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import DatasetError
from tests.data_recipes.sources import BROKEN, build, image, preferences, write_parquet

IMAGES = ("image1", "image2")


def pair(first: str, second: str, **more: Any) -> dict[str, Any]:
    """A row without its results."""
    images = {"image1": image(first), "image2": BROKEN if second == "broken" else image(second)}
    return {"prompt": "a cat", **images, "model1": "flux-1.0", "model2": "flux-1.1", **more}


def voted(first: str, second: str, votes_1: int, votes_2: int) -> dict[str, Any]:
    return pair(first, second, votes_image1=votes_1, votes_image2=votes_2, detailed_results="[]")


def test_numbers_of_votes(tmp_path: Path) -> None:
    rows = [
        voted("a", "b", 20, 6),
        voted("b", "c", 6, 20),
        voted("a", "c", 13, 13),
        voted("c", "d", 0, 0),
        voted("a", "broken", 26, 0),
    ]
    source = write_parquet(tmp_path / "data" / "train_0001-00000-of-00001.parquet", rows, IMAGES)
    built = build("rapidata", tmp_path / "out", source=source.parent)
    assert preferences(tmp_path / "out", *"abc") == {
        ("a cat", "a", "b"): (round(20 / 26, 12), 26.0),
        ("a cat", "b", "c"): (round(6 / 26, 12), 26.0),
        ("a cat", "a", "c"): (0.5, 26.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "no votes": 1}
    with pytest.raises(DatasetError, match="votes on one axis only, which its name gives; leave axis out"):
        build("rapidata", tmp_path / "no", source=source, axis="coherence")


def weighed(first: str, second: str, preference: float | None, alignment: float | None) -> dict[str, Any]:
    """A row of shares of image1: 4 votes on preference, 2 on alignment."""
    results: dict[str, Any] = {}
    for axis, share, votes in (("preference", preference, 4), ("alignment", alignment, 2)):
        results[f"weighted_results_image1_{axis}"] = share
        results[f"weighted_results_image2_{axis}"] = None if share is None else 1 - share
        results[f"detailed_results_{axis}"] = json.dumps([{"votedFor": "x.jpg"}] * votes)
    return pair(first, second, **results)


def test_weighted_shares_are_of_one_axis(tmp_path: Path) -> None:
    rows = [
        weighed("a", "b", 0.75, 0.25),
        weighed("b", "c", None, 0.5),
        weighed("a", "c", 0.0, 1.0),
        weighed("a", "broken", 1.0, 1.0),
    ]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, IMAGES)
    built = build("rapidata", tmp_path / "preference", source=source)
    assert preferences(tmp_path / "preference", *"abc") == {
        ("a cat", "a", "b"): (0.75, 4.0),
        ("a cat", "a", "c"): (0.0, 4.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "no votes": 1}
    build("rapidata", tmp_path / "alignment", source=source, axis="alignment")
    assert preferences(tmp_path / "alignment", *"abc") == {
        ("a cat", "a", "b"): (0.25, 2.0),
        ("a cat", "b", "c"): (0.5, 2.0),
        ("a cat", "a", "c"): (1.0, 2.0),
    }
