from collections.abc import Callable
from pathlib import Path

import pytest

from prefrm.errors import DatasetError
from prefrm.media import decode
from prefrm.records import Comparison, PreferenceGroup, read_groups, write_groups
from prefrm.train.data import ComparisonCollator, load_comparisons


def brightness_of(image: bytes) -> int:
    return decode(image).getpixel((0, 0))[0]


def test_every_comparison_stands_in_both_orders(tmp_path: Path, brightness: Callable[..., Path]) -> None:
    rows = load_comparisons(brightness(train=4), "train", cache=tmp_path / "cache")
    assert len(rows) == 4 * 3 * 2
    for first, second in zip(rows[0::2]["id"], rows[1::2]["id"], strict=True):
        assert first == second
    for row in rows:
        assert row["p"] == float(brightness_of(row["first"]) > brightness_of(row["second"]))
    assert sum(row["p"] for row in rows) == len(rows) / 2


def test_a_batch_has_the_targets_of_its_rows(judge, tmp_path: Path, brightness: Callable[..., Path]) -> None:
    rows = load_comparisons(brightness(train=2), "train", cache=tmp_path / "cache")
    batch = ComparisonCollator(judge.processor)([rows[n] for n in range(6)])
    assert len(batch["batch"]) == 6
    assert batch["p_B"].tolist() == [rows[n]["p"] for n in range(6)]
    assert batch["weight_B"].tolist() == [1.0] * 6
    # Six comparisons of three images: each is prepared once.
    assert len(batch["batch"].distinct_images) == 3


def test_an_unreadable_image_costs_its_own_rows_and_names_its_record(
    judge, tmp_path: Path, brightness: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    (good,) = read_groups(brightness(train=1), "train")
    bad = PreferenceGroup(
        id="broken",
        prompt="p",
        images=(good.images[0], b"no image"),
        comparisons=(Comparison.preferred(0, 1),),
    )
    write_groups([good, bad], tmp_path / "mixed", "train")
    rows = load_comparisons(tmp_path / "mixed", "train", cache=tmp_path / "cache")
    collator = ComparisonCollator(judge.processor)
    batch = collator([rows[n] for n in range(len(rows))])
    assert len(batch["batch"]) == len(batch["p_B"]) == 6
    assert list(collator.left_out) == ["broken"]
    assert "a comparison of record 'broken' is left out" in caplog.text
    assert collator.read == 6
    assert collator([rows[6], rows[7]])["batch"] is None
    assert collator.read == 6


def test_a_split_without_comparisons_is_refused(tmp_path: Path) -> None:
    write_groups(
        [PreferenceGroup(id="a", prompt="p", images=(b"x", b"y"), comparisons=())], tmp_path, "train"
    )
    with pytest.raises(DatasetError, match="nothing to learn from"):
        load_comparisons(tmp_path, "train", cache=tmp_path / "cache")
