import math

import numpy as np
import pytest

from prefrm.errors import DatasetError
from prefrm.eval import JudgedGroup, compare
from prefrm.records import Comparison
from prefrm.winmatrix import WinMatrix


def judged(logit, comparison=None, *, id="a", prompt=None):
    """A group of two; `logit` is the log-odds that candidate 0 wins, NaN if nobody said."""
    matrix = WinMatrix.from_order_logits(np.array([[0.0, logit], [-logit, 0.0]]))
    return JudgedGroup(
        id=id,
        prompt=prompt or id,
        comparisons=(comparison or Comparison.preferred(0, 1),),
        quality=None,
        tags={},
        matrix=matrix,
    )


def groups(logits):
    return [judged(z, id=str(n)) for n, z in enumerate(logits)]


def test_the_difference_by_hand():
    # Right, right, wrong, right against right, wrong, right, wrong: 3/4 - 2/4; three verdicts differ.
    both = compare(groups([1, 2, -1, 1]), groups([2, -2, 1, -1]))
    assert both.pair_accuracy.value == pytest.approx(0.25)
    assert (both.differ, both.first_alone, both.second_alone) == (3, 2, 1)
    assert (both.pairs, both.strict_pairs, both.left_out) == (4, 4, 0)
    nll = lambda z: math.log1p(math.exp(-z))  # noqa: E731
    expected = sum(map(nll, [1, 2, -1, 1])) - sum(map(nll, [2, -2, 1, -1]))
    assert both.log_loss.value == pytest.approx(expected / 4, rel=1e-6)


def test_the_other_way_round_every_sign_changes():
    generator = np.random.default_rng(0)
    a, b = (groups(generator.normal(size=60) + 0.5) for _ in range(2))
    there, back = compare(a, b), compare(b, a)
    for name in ("pair_accuracy", "log_loss"):
        one, other = getattr(there, name), getattr(back, name)
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert (there.first_alone, there.second_alone) == (back.second_alone, back.first_alone)


def test_equal_verdicts_on_few_pairs_say_little_and_equal_probabilities_all():
    one = groups(np.random.default_rng(1).normal(size=4))
    both = compare(one, one)
    assert both.differ == 0
    assert both.pair_accuracy.value == 0
    assert both.pair_accuracy.high == -both.pair_accuracy.low == pytest.approx(0.46, abs=0.01)
    assert (both.log_loss.value, both.log_loss.low, both.log_loss.high) == (0, 0, 0)


def test_the_interval_of_an_accuracy_is_that_of_bonett_and_price():
    """Four pairs, on all of which the first alone is right: (5 - 1) / 6, variance (6 / 6 - (4 / 6)^2) / 6."""
    both = compare(groups([1, 1, 1, 1]), groups([-1, -1, -1, -1]))
    entry = both.pair_accuracy
    assert (entry.value, entry.pairs, entry.prompts) == (1.0, 4, 4)
    assert entry.low == pytest.approx(4 / 6 - 1.959964 * math.sqrt((1 - 16 / 36) / 6))
    assert entry.high == 1.0


def test_pairing_narrows_the_interval():
    """Two judges with the same mistakes but for one: each alone is uncertain, their difference is not."""
    z = np.where(np.arange(100) % 3 == 0, -1.0, 1.0)
    better = z.copy()
    better[0] = 1.0
    both = compare(groups(better), groups(z))
    assert both.pair_accuracy.value == pytest.approx(0.01)
    assert both.pair_accuracy.high - both.pair_accuracy.low < 0.07


def test_ten_pairs_of_one_prompt_are_one_observation():
    right, wrong = ([judged(z, id=str(n), prompt="one" if n < 10 else "two") for n in range(20)]
                    for z in (1.0, -1.0))  # fmt: skip
    both = compare(right[:10] + wrong[10:], wrong[:10] + right[10:])
    assert (both.pair_accuracy.pairs, both.pair_accuracy.prompts) == (20, 2)
    two = compare([right[0], wrong[10]], [wrong[0], right[10]])
    assert (both.pair_accuracy.low, both.pair_accuracy.high) == (
        two.pair_accuracy.low,
        two.pair_accuracy.high,
    )
    assert both.pair_accuracy.low < -0.6 and both.pair_accuracy.high > 0.6


def test_a_pair_that_one_of_them_did_not_judge_counts_for_neither():
    both = compare(groups([1, math.nan, 1]), groups([-1, 1, math.nan]))
    assert (both.pairs, both.left_out, both.differ) == (1, 2, 1)
    assert both.pair_accuracy.value == 1.0
    nothing = compare(groups([math.nan]), groups([1]))
    assert nothing.pairs == 0 and math.isnan(nothing.pair_accuracy.value)


def test_a_tie_of_the_dataset_counts_for_the_verdicts_and_not_for_the_accuracy():
    tie = Comparison.tie(0, 1)
    both = compare([judged(1, tie)], [judged(-1, tie)])
    assert (both.pairs, both.strict_pairs, both.differ, both.first_alone) == (1, 0, 1, 0)


def test_other_groups_are_refused():
    with pytest.raises(DatasetError, match="different groups: '0' and 'a'"):
        compare(groups([1]), [judged(1)])
    with pytest.raises(DatasetError, match="different groups: 2 and 1 of them"):
        compare(groups([1, 1]), groups([1]))
