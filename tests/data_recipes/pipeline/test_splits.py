"""No prompt and no image is in two splits, nor in a dataset that this one is to be apart from."""

from pathlib import Path
from typing import Any

import pytest

from data_recipes.pipeline.settle import split_of
from prefrm.errors import ConfigError, DatasetError
from prefrm.records import read_info
from tests.data_recipes.sources import build, groups_of, image, preferences, write_parquet

SHARES = {"validation": 0.1, "test": 0.2}


def test_splits_follow_the_prompt_and_their_shares() -> None:
    splits = [split_of(f"prompt {n}", SHARES, seed=0) for n in range(2000)]
    assert splits.count("test") / 2000 == pytest.approx(0.2, abs=0.03)
    assert splits.count("validation") / 2000 == pytest.approx(0.1, abs=0.03)
    assert splits == [split_of(f"prompt {n}", SHARES, seed=0) for n in range(2000)]
    assert splits != [split_of(f"prompt {n}", SHARES, seed=1) for n in range(2000)]


def test_letter_case_and_spacing_do_not_move_a_prompt() -> None:
    for n in range(50):
        assert split_of(f"A  red CAT {n} ", SHARES, 0) == split_of(f"a red cat {n}", SHARES, 0)


def rows(*pairs: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "a": image(a), "b": image(b)} for prompt, a, b in pairs]


OPTIONS = {"image_1": "a", "image_2": "b", "preferred": "image_1"}


def test_what_shares_a_prompt_or_an_image_with_a_held_out_split_of_the_source_is_left_out(
    tmp_path: Path,
) -> None:
    write_parquet(tmp_path / "in" / "test.parquet", rows(("t", "a", "b")))
    write_parquet(tmp_path / "in" / "validation.parquet", rows(("v", "c", "d"), ("T ", "e", "f")))
    write_parquet(
        tmp_path / "in" / "train.parquet",
        rows(("x", "g", "h"), ("x", "g", "b"), ("v", "i", "j"), ("y", "k", "f")),
    )
    built = build("table", tmp_path / "out", source=tmp_path / "in", shares=(0.3, 0.3), **OPTIONS)
    assert list(preferences(tmp_path / "out", "a", "b", split="test")) == [("t", "a", "b")]
    assert list(preferences(tmp_path / "out", "c", "d", split="validation")) == [("v", "c", "d")]
    # f is in a row of validation that is left out itself.
    assert list(preferences(tmp_path / "out", *"ghkf")) == [("x", "g", "h"), ("y", "k", "f")]
    assert {name: counts.left_out for name, counts in built.info.splits.items()} == {
        "train": {"in the test split": 1, "in the validation split": 1},
        "validation": {"in the test split": 1},
        "test": {},
    }
    assert {name: counts.complete for name, counts in built.info.splits.items()} == {
        "train": False,
        "validation": False,
        "test": True,
    }


def test_a_split_that_the_source_lacks_is_drawn_by_prompt(tmp_path: Path) -> None:
    pairs = [(f"prompt {n}", f"{n}", f"{n}'") for n in range(40)]
    write_parquet(tmp_path / "in" / "train.parquet", rows(*pairs))
    write_parquet(tmp_path / "in" / "test.parquet", rows(("t", "a", "b")))
    built = build("table", tmp_path / "out", source=tmp_path / "in", shares=(0.3, 0.3), **OPTIONS)
    assert built.groups["test"] == 1
    assert built.groups["validation"] == sum(
        split_of(p, {"validation": 0.3}, 0) == "validation" for p, *_ in pairs
    )
    assert sum(built.groups.values()) == 41
    assert {name for name, counts in read_info(tmp_path / "out").splits.items() if counts.drawn} == {
        "validation"
    }


def test_a_source_without_train_gives_none(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "test.parquet", rows(("t", "a", "b")))
    assert build("table", tmp_path / "out", source=source, shares=(0.1, 0.1), **OPTIONS).groups == {"test": 1}


def test_a_dataset_is_apart_from_another_by_prompt_and_by_image(tmp_path: Path) -> None:
    other = write_parquet(tmp_path / "other.parquet", rows(("a cat", "a", "b")))
    build("table", tmp_path / "other", source=other, **OPTIONS)
    mine = write_parquet(
        tmp_path / "mine.parquet", rows(("A  cat", "c", "d"), ("x", "b", "c"), ("y", "e", "f"))
    )
    built = build("table", tmp_path / "out", source=mine, apart_from=[tmp_path / "other"], **OPTIONS)
    assert [group.prompt for group in groups_of(tmp_path / "out")] == ["y"]
    assert built.info.left_out == {f"also in {tmp_path / 'other'}": 2}
    assert list(read_info(tmp_path / "out").apart_from) == [str(tmp_path / "other")]
    assert not read_info(tmp_path / "out").splits["train"].complete
    with pytest.raises(DatasetError, match="no usable judgement; left out: 1 also in "):
        build("table", tmp_path / "none", source=other, apart_from=[tmp_path / "other"], **OPTIONS)


def test_a_dataset_that_is_drawn_is_apart_from_nothing(tmp_path: Path) -> None:
    build("shapes", tmp_path / "other", shares=(1, 1), train=1)
    with pytest.raises(ConfigError, match="apart_from is for recipes that read a source"):
        build("shapes", tmp_path / "out", shares=(1, 1), apart_from=[tmp_path / "other"], train=1)
