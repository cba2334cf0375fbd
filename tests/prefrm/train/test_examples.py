from collections.abc import Callable
from pathlib import Path

import pytest

from prefrm.errors import DatasetError
from prefrm.media import decode
from prefrm.records import Comparison, PreferenceGroup, write_groups
from prefrm.train.examples import group_example, load_examples


def brightness_of(image: bytes) -> int:
    return decode(image).getpixel((0, 0))[0]


def test_every_comparison_stands_in_both_orders(tmp_path: Path, brightness: Callable[..., Path]) -> None:
    examples = load_examples(brightness(train=4), "train", unit="pair", cache=tmp_path / "cache")
    assert len(examples) == 4 * 3 * 2
    rows = examples.fetch(range(len(examples)))
    for row, other in zip(rows[0::2], rows[1::2], strict=True):
        assert row["id"] == other["id"]
        assert row["images"] == other["images"][::-1]
    for row in rows:
        (first,), (second,), (p,) = row["first"], row["second"], row["p"]
        brighter = brightness_of(row["images"][first]) > brightness_of(row["images"][second])
        assert p == float(brighter)
    assert sum(row["p"][0] for row in rows) == len(rows) / 2


def test_a_group_has_each_comparison_once_and_only_the_images_that_are_compared(tmp_path: Path) -> None:
    compared = (Comparison(i=3, j=1, p=0.8, weight=2.0), Comparison.preferred(1, 0))
    none = PreferenceGroup(id="none", prompt="q", images=(b"x", b"y"), comparisons=())
    some = PreferenceGroup(id="some", prompt="p", images=(b"a", b"b", None, b"d"), comparisons=compared)
    write_groups([none, some], tmp_path, "train")
    examples = load_examples(tmp_path, "train", unit="group", cache=tmp_path / "cache")
    assert len(examples) == 1
    assert examples.fetch([0]) == [group_example("some", "p", some.images, compared)]
    assert examples.fetch([0])[0] == {
        "id": "some",
        "prompt": "p",
        "images": [b"a", b"b", b"d"],
        "first": [2, 1],
        "second": [1, 0],
        "p": [0.8, 1.0],
        "weight": [2.0, 1.0],
    }


def test_an_order_is_of_its_seed_and_can_be_entered_anywhere(
    tmp_path: Path, brightness: Callable[..., Path]
) -> None:
    examples = load_examples(brightness(train=4), "train", unit="pair", cache=tmp_path / "cache")
    order = list(examples.order(5))
    assert sorted(order) == list(range(24))
    assert order != list(examples.order(6))
    assert list(examples.order(5, skip=7)) == order[7:]


def test_a_split_without_comparisons_is_refused(tmp_path: Path) -> None:
    write_groups(
        [PreferenceGroup(id="a", prompt="p", images=(b"x", b"y"), comparisons=())], tmp_path, "train"
    )
    with pytest.raises(DatasetError, match="nothing to learn from"):
        load_examples(tmp_path, "train", unit="pair", cache=tmp_path / "cache")
