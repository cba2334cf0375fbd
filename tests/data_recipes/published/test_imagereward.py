"""ImageRewardDB: rank 1 is the best, equal ranks tie, and a ranking may have neither a 1 nor every number."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import ConfigError, DatasetError
from tests.data_recipes.sources import build, groups_of, preferences, write_image, write_json


def images(folder: Path, names: str) -> None:
    for name in names:
        write_image(folder / f"{name}.png")
    write_image(folder / "broken.png")


def test_rows_of_the_repository(tmp_path: Path) -> None:
    images(tmp_path / "images", "abcdef")
    rows = [
        {
            "id": "005658-0040",
            "prompt": "a cat",
            "generations": [*(f"images/{name}.png" for name in ("a", "b", "broken", "c", "d")), None],
            "ranking": [2, 5, 1, 2, 3, 3],  # no usable image has rank 1; a and c tie; there is no 4
        },
        # The prompt recurs with another id: its ranks cannot be compared with those above.
        {
            "id": "005658-0041",
            "prompt": "a cat",
            "generations": ["images/e.png", "images/f.png"],
            "ranking": [2, 1],
        },
    ]
    built = build("imagereward", tmp_path / "out", source=write_json(tmp_path / "test.json", rows))
    assert preferences(tmp_path / "out", *"abcdef", split="test") == {
        ("a cat", "a", "b"): (1.0, 1.0),
        ("a cat", "a", "c"): (0.5, 1.0),
        ("a cat", "a", "d"): (1.0, 1.0),
        ("a cat", "b", "c"): (0.0, 1.0),
        ("a cat", "b", "d"): (0.0, 1.0),
        ("a cat", "c", "d"): (1.0, 1.0),
        ("a cat", "e", "f"): (0.0, 1.0),
    }
    counts = built.info.splits["test"]
    assert (counts.groups, counts.strict, counts.ties, counts.left_out) == (2, 6, 1, {"broken image": 2})
    assert {frozenset(group.quality or ()) for group in groups_of(tmp_path / "out", "test")} == {
        frozenset({-2.0, -5.0, -3.0}),
        frozenset({-1.0, -2.0}),
    }


def hub_row(name: str, rank: int, overall: int) -> dict[str, Any]:
    """A row of the Hub's files."""
    return {
        "image_path": f"images/train/train_1/{name}.png",
        "prompt_id": "000904-0035",
        "prompt": "a cat",
        "classification": "Animals",
        "image_amount_in_total": 3,
        "rank": rank,
        "overall_rating": overall,
        "image_text_alignment_rating": 5,
        "fidelity_rating": 7,
    }


def test_rows_of_the_hub_are_compared_by_one_axis(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "train" / "train_1"
    images(folder, "abc")
    # Rank and rating of b and c disagree.
    rows = [hub_row("a", 1, 7), hub_row("b", 2, 4), hub_row("c", 3, 6)]
    write_json(folder / "train_1.json", rows)
    build("imagereward", tmp_path / "rank", source=tmp_path)
    build("imagereward", tmp_path / "overall", source=tmp_path / "images", axis="overall")
    assert preferences(tmp_path / "rank", *"abc")["a cat", "b", "c"] == (1.0, 1.0)
    assert preferences(tmp_path / "overall", *"abc")["a cat", "b", "c"] == (0.0, 1.0)
    (group,) = groups_of(tmp_path / "overall")
    assert group.tags == {"classification": "Animals"}


def test_the_loading_script_of_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a loading script, which datasets does not run"):
        build("imagereward", tmp_path / "out", source="hf://zai-org/ImageRewardDB")


def test_the_repository_has_no_axis_but_rank(tmp_path: Path) -> None:
    rows = [{"id": "1", "prompt": "a cat", "generations": ["a.png", "b.png"], "ranking": [1, 2]}]
    with pytest.raises(
        DatasetError, match=r"no row has the format that the recipe reads: test\.json:0: .*only ranks"
    ):
        build("imagereward", tmp_path / "o", source=write_json(tmp_path / "test.json", rows), axis="fidelity")
