from collections.abc import Callable
from pathlib import Path

import pytest

from prefrm.records import Comparison, PreferenceGroup, read_groups, write_groups
from prefrm.train.data import ComparisonCollator, blank_batch
from prefrm.train.examples import load_examples


def test_a_batch_has_the_targets_of_its_rows(judge, tmp_path: Path, brightness: Callable[..., Path]) -> None:
    rows = load_examples(brightness(train=2), "train", unit="pair", cache=tmp_path / "cache").fetch(range(6))
    batch = ComparisonCollator(judge.processor)(rows)
    assert len(batch["batch"]) == 6
    assert batch["p_N"].tolist() == [p for row in rows for p in row["p"]]
    assert batch["weight_N"].tolist() == [1.0] * 6
    # Six comparisons of three images: each is prepared once.
    assert len(batch["batch"].distinct_images) == 3


def test_a_group_gives_all_its_comparisons(judge, tmp_path: Path, brightness: Callable[..., Path]) -> None:
    folder = brightness(train=2)
    batches = []
    for unit, numbers in (("group", [0, 1]), ("pair", range(0, 12, 2))):
        rows = load_examples(folder, "train", unit=unit, cache=tmp_path / unit).fetch(numbers)
        batches.append(ComparisonCollator(judge.processor)(rows))
    whole, pairs = batches
    assert whole["p_N"].tolist() == pairs["p_N"].tolist()
    assert whole["batch"].ids_BL.equal(pairs["batch"].ids_BL)


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
    rows = load_examples(tmp_path / "mixed", "train", unit="pair", cache=tmp_path / "cache").fetch(range(8))
    collator = ComparisonCollator(judge.processor)
    batch = collator(rows)
    assert len(batch["batch"]) == len(batch["p_N"]) == 6
    assert list(collator.left_out) == ["broken"]
    assert "a comparison of record 'broken' is left out" in caplog.text
    assert collator.read == 6
    assert collator([rows[6], rows[7]])["batch"] is None
    assert collator([])["batch"] is None
    assert collator.read == 6


def test_a_blank_batch_can_be_judged(judge) -> None:
    assert judge(blank_batch(judge.processor)).shape == (1,)
