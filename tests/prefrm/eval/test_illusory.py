import math

import numpy as np
import pytest

from prefrm.eval import JudgedGroup, illusory_advantages, measure
from prefrm.eval.illusory import equal_sets
from prefrm.rewards import FLOW_GRPO
from prefrm.winmatrix import WinMatrix


def judged(logits, quality, errors=None):
    matrix = WinMatrix.from_order_logits(np.array(logits, float), errors=errors)
    return JudgedGroup(
        id="a", prompt="a", comparisons=(), quality=quality and tuple(quality), tags={}, matrix=matrix
    )


def of_utilities(u, quality, errors=None):
    return judged(np.subtract.outer(u, u), quality, errors)


def noisy(generator, quality, scale, noise):
    """A judge that sees the quality, times `scale`, through Gaussian noise of its own for each pair."""
    z = scale * np.subtract.outer(quality, quality)
    error = np.triu(generator.normal(size=z.shape) * noise, 1)
    return judged(z + error - error.T, quality)


def test_the_sets_are_the_candidates_of_one_quality():
    group = of_utilities([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 0.5, 1.0, 0.5, 0.7, 1.0])
    assert [matrix.size for matrix in equal_sets(group)] == [2, 3]
    np.testing.assert_array_equal(next(equal_sets(group)).p, group.matrix.subset([1, 3]).p)


def test_a_pair_of_equals_by_hand():
    """Utilities 1 and 0 among equals, 2 and -2 in another group; the weak prior shrinks them a little."""
    groups = [of_utilities([1.0, 0.0], [5.0, 5.0]), of_utilities([2.0, -2.0], [1.0, 0.0])]
    pointwise = illusory_advantages(groups)["bradley_terry"]
    assert (pointwise.sets, pointwise.candidates) == (1, 2)
    # 1 / 2 above and below the mean, beside 2: sqrt((2 * 0.25 + 2 * 4) / 4).
    usual = math.sqrt((2 * 0.25 + 2 * 4) / 4)
    assert pointwise.spread == pytest.approx(0.5, rel=5e-2)
    assert pointwise.usual_spread == pytest.approx(usual, rel=5e-2)
    assert pointwise.batch_advantage == pytest.approx(0.5 / usual, rel=5e-2)
    # Two values and the unbiased deviation: 1 / sqrt(2), whatever they are.
    assert pointwise.group_advantage == pytest.approx(1 / math.sqrt(2), rel=1e-6)
    assert pointwise.amplification == pytest.approx(usual / 0.5 / math.sqrt(2), rel=5e-2)
    rate = illusory_advantages(groups)["win_rate"]
    assert rate.spread == pytest.approx(1 / (1 + math.exp(-1)) - 0.5, rel=1e-6)


@pytest.mark.parametrize("noise", [1e-3, 0.1, 3.0])
def test_the_sets_own_deviation_hides_how_small_the_differences_are(noise):
    generator = np.random.default_rng(0)
    groups = [noisy(generator, [1.0] * 6 + [0.0] * 6, 2.0, noise) for _ in range(30)]
    views = illusory_advantages(groups)
    for view in ("bradley_terry", "win_rate"):
        assert 0.7 < views[view].group_advantage < 0.9
    # Candidates 0 to 5 are equals, and so are 6 to 11; win rates have the mean 1/2 in every matrix.
    p = np.stack([group.matrix.p for group in groups]).astype(np.float64)
    equal = np.concatenate([p[:, :6, :6], p[:, 6:, 6:]])
    inside, usual = ((m.sum(axis=-1) - 0.5) / (m.shape[-1] - 1) - 0.5 for m in (equal, p))
    expected = np.abs(inside).mean() / (np.sqrt(np.mean(usual**2)) + FLOW_GRPO.eps)
    assert views["win_rate"].batch_advantage == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_beside_the_usual_spread_small_differences_are_as_small_as_they_are(noise):
    """While p is linear in it, noise of s in a pair is sqrt(5 / 36) s in the utility of one of 6 equals.

    Least squares: a utility is the mean of its 6 log-odds, its own 0 among them. The usual utilities are
    1 and -1, and the mean |x| of a normal x is sqrt(2 / pi) of its deviation.
    """
    generator = np.random.default_rng(0)
    groups = [noisy(generator, [1.0] * 6 + [0.0] * 6, 2.0, noise) for _ in range(30)]
    size = illusory_advantages(groups)["bradley_terry"].batch_advantage
    # 360 utilities estimate a mean to 4%; the bound is two of that.
    assert size == pytest.approx(math.sqrt(2 / math.pi) * math.sqrt(5 / 36) * noise, rel=0.08)


def test_less_noise_is_amplified_more():
    generator = np.random.default_rng(1)
    quality = [1.0] * 4 + [0.0] * 4
    much, little = (
        illusory_advantages([noisy(generator, quality, 2.0, noise) for _ in range(20)])
        for noise in (1.0, 0.01)
    )
    for view in much:
        assert little[view].noise_to_signal <= much[view].noise_to_signal + 0.05
    assert little["win_rate"].amplification > 10 * much["win_rate"].amplification


def test_hard_verdicts_make_whole_wins_of_nothing():
    """Equals that differ by a thousandth: their win rates are all near 0.5, their hard ones are not."""
    generator = np.random.default_rng(2)
    views = illusory_advantages([noisy(generator, [1.0] * 4 + [0.0] * 4, 2.0, 1e-3) for _ in range(20)])
    assert views["win_rate"].spread < 1e-3
    assert views["hard_win_rate"].spread > 0.2
    assert views["hard_win_rate"].batch_advantage > 100 * views["win_rate"].batch_advantage


def test_a_judge_that_sees_equals_as_equals_hands_out_nothing():
    for entry in illusory_advantages([of_utilities([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])]).values():
        assert (entry.spread, entry.group_advantage, entry.batch_advantage) == pytest.approx((0, 0, 0))
        assert entry.noise_to_signal == pytest.approx(0, abs=1e-6)


def test_a_judge_that_guesses_gives_equals_as_much_as_anybody():
    generator = np.random.default_rng(3)
    for entry in illusory_advantages(
        [noisy(generator, [1.0] * 4 + [0.0] * 4, 0.0, 1.0) for _ in range(200)]
    ).values():
        assert entry.noise_to_signal == pytest.approx(1.0, abs=0.05)


def test_who_was_not_judged_is_in_no_set():
    group = of_utilities([1.0, 0.0, 0.5], [1.0, 1.0, 1.0], errors=("", "unreadable", ""))
    assert illusory_advantages([group])["win_rate"].candidates == 2
    alone = of_utilities([1.0, 0.0], [1.0, 1.0], errors=("", "unreadable"))
    assert math.isnan(illusory_advantages([alone, group])["win_rate"].spread) is False
    assert illusory_advantages([alone])["win_rate"].sets == 0


def test_equals_whose_pair_was_not_judged_are_no_set():
    logits = np.subtract.outer([1.0, 0.0, 2.0], [1.0, 0.0, 2.0])
    logits[0, 1] = np.nan
    entry = illusory_advantages([judged(logits, [1.0, 1.0, 0.0])])["bradley_terry"]
    assert entry.sets == 0 and math.isnan(entry.group_advantage)


def test_without_quality_there_is_nothing_to_say():
    assert measure([of_utilities([1.0, 0.0], None)]).illusory_advantage == {}
    distinct = measure([of_utilities([1.0, 0.0], [1.0, 0.0])]).illusory_advantage["win_rate"]
    assert distinct.sets == 0 and math.isnan(distinct.batch_advantage)
