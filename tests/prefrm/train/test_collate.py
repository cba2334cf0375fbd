from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch

from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode, digest
from prefrm.records import Comparison, PreferenceGroup, read_groups, write_groups
from prefrm.train.coverage import Coverage
from prefrm.train.data import ComparisonCollator, blank_batch
from prefrm.train.examples import Example, group_example, load_examples, pair_example

TEN = list(combinations(range(5), 2))


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
    collator, coverage = ComparisonCollator(judge.processor), Coverage()
    batch = coverage.add(collator(rows))
    assert len(batch["batch"]) == len(batch["p_N"]) == 6
    assert list(coverage.left_out) == ["broken"]
    assert (
        f"of record 'broken' is left out what compares image sha256 {digest(b'no image')[:12]}: "
        in caplog.text
    )
    assert coverage.read == 6
    assert coverage.add(collator([rows[6], rows[7]]))["batch"] is None
    assert coverage.add(collator([]))["batch"] is None
    assert coverage.read == 6


def test_a_blank_batch_can_be_judged(judge) -> None:
    assert judge(blank_batch(judge.processor)).shape == (1,)


def five(images: list[bytes]) -> Example:
    """All ten comparisons of five images, none of which has the same target or weight as another."""
    compared = [Comparison(i=i, j=j, p=0.1 * i + 0.01 * j, weight=1.0 + n) for n, (i, j) in enumerate(TEN)]
    return group_example("g", "p", images, compared)


@pytest.mark.parametrize("trouble", ["too long for a slot", "no image", "too long for the model"])
def test_an_image_that_cannot_be_read_costs_its_own_comparisons(
    tiny_checkpoint: Path, png, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Four of ten, of whatever reads groups; the reason names the image."""
    alone = trouble == "too long for the model"
    fields = {"head": "scalar"} if alone else {"attention": "isolated"}
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **fields), "cpu")
    images = [png(n, width=32, height=32) for n in range(5)]
    small = judge.processor.prepare_image(decode(images[0]))
    images[3] = b"no image" if trouble == "no image" else png(3, width=640, height=64)
    if alone:
        judge.processor.max_length = len(judge.processor.prepare_single("p", small))
    coverage = Coverage()
    batch = coverage.add(ComparisonCollator(judge.processor)([five(images)]))
    kept = [n for n, pair in enumerate(TEN) if 3 not in pair]
    orders = 1 if alone else 2
    assert len(batch["batch"]) == coverage.read == orders * len(kept)
    assert batch["weight_N"].tolist() == orders * [1.0 + n for n in kept]
    targets = [0.1 * i + 0.01 * j for i, j in TEN if 3 not in (i, j)]
    assert batch["p_N"][: len(kept)].tolist() == pytest.approx(targets)
    (reason,) = coverage.left_out.values()
    assert reason.startswith(f"image 4 of 5, sha256 {digest(images[3])[:12]}: ")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"of record 'g' is left out what compares {reason}"
    # What is left is read as if nothing else had been there.
    expected = ComparisonCollator(judge.processor)([{**five(images), **without(five(images), 3)}])
    assert judge(batch["batch"]).equal(judge(expected["batch"]))


def without(row: Example, place: int) -> Example:
    kept = [n for n, pair in enumerate(zip(row["first"], row["second"], strict=True)) if place not in pair]
    return {key: [row[key][n] for n in kept] for key in ("first", "second", "p", "weight")}


def test_two_images_that_are_too_long_together_cost_their_comparison(judge, png) -> None:
    images = [png(n, width=32, height=32) for n in range(2)]
    one, other = (judge.processor.prepare_image(decode(image)) for image in images)
    judge.processor.max_length = len(judge.processor.prepare_pair("p", one, other)) - 1
    batch = ComparisonCollator(judge.processor)([pair_example("g", "p", images, Comparison.preferred(0, 1))])
    assert batch["batch"] is None
    ((record, reason),) = batch["left_out"]
    assert record == "g" and reason.startswith("its images: the comparison has")


def test_a_large_group_is_read_in_sequences_of_bounded_length(tiny_checkpoint: Path, png) -> None:
    """With the same outcomes and the same loss, however many they are."""
    spec = JudgeSpec(base_model=str(tiny_checkpoint), attention="isolated")
    judge = Judge.from_base(spec, "cpu")
    row = five([png(n, width=32 + 16 * (n % 3), height=32) for n in range(5)])
    outcomes, losses, rows = [], [], []
    for most in (None, 800, 300, 1):
        batch = ComparisonCollator(judge.processor, group_tokens=most)([row])
        rows.append(len(batch["batch"].ids_BL))
        assert most in (None, 1) or batch["batch"].ids_BL.shape[1] <= most
        with torch.inference_mode():
            outcomes.append(judge(batch["batch"]))
        losses.append(judge.loss(outcomes[-1], batch["p_N"], batch["weight_N"]))
    assert rows[0] == 1 < rows[1] < rows[2] < rows[3] == 20
    assert outcomes[0].std() > 0.01
    for split, loss in zip(outcomes, losses, strict=True):
        torch.testing.assert_close(split, outcomes[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(loss, losses[0], atol=1e-5, rtol=0)
