import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.eval import (
    Pairs,
    half_tie_accuracy,
    pair_accuracy,
    prompt_accuracy,
    three_label_accuracy,
    tie_calibrated_accuracy,
)
from prefrm.eval.thresholds import Thresholds, fit_half_tie_threshold, fit_tie_threshold, verdict
from prefrm.winmatrix import CalibrationMap, PowerScaling, TemperatureScaling


def columns(p, target, *, weight=None, prompt=None, tie=None, lower_first=None):
    n = len(p)
    return Pairs(
        p=np.array(p, float),
        order_gap=np.zeros(n),
        tie=np.full(n, np.nan) if tie is None else np.array(tie, float),
        target=np.array(target, float),
        weight=np.ones(n) if weight is None else np.array(weight, float),
        prompt=np.arange(n) if prompt is None else np.array(prompt),
        lower_first=np.ones(n, bool) if lower_first is None else np.array(lower_first),
    )


# A clear win, a clear mistake, a near tie on a tie, a clear verdict on a tie, a near tie on a strict pair.
P, TARGET = [0.9, 0.2, 0.55, 0.8, 0.52], [1, 1, 0.5, 0.5, 1]


def test_each_definition_on_the_same_five_pairs():
    pairs = columns(P, TARGET)
    assert pair_accuracy(pairs).value == pytest.approx(2 / 3)
    assert three_label_accuracy(pairs).value == pytest.approx(2 / 5)
    # Ties up to a margin of 0.2: win, lose, tie, win, tie against win, win, tie, tie, win.
    assert tie_calibrated_accuracy(pairs, 0.2).value == pytest.approx(2 / 5)
    assert half_tie_accuracy(pairs, 0.2).value == pytest.approx((1 + 0 + 1 + 0.5 + 0.5) / 5)


def test_a_mean_over_prompts_is_not_a_mean_over_pairs():
    pairs = columns([0.9, 0.9, 0.9, 0.1], [1, 1, 1, 1], prompt=[0, 0, 0, 1])
    assert pair_accuracy(pairs).value == 0.75
    assert prompt_accuracy(pairs).value == 0.5


def test_the_weights_count_inside_a_prompt_and_not_between_prompts():
    pairs = columns([0.9, 0.1, 0.1], [1, 1, 1], prompt=[0, 0, 1], weight=[3, 1, 100])
    assert prompt_accuracy(pairs).value == pytest.approx((0.75 + 0) / 2)


def test_a_judge_with_its_own_tie_says_it_where_it_is_most_probable():
    # p counts half of P(tie): 0.51 and a tie of 0.2 are 0.41 : 0.39 : 0.2; 0.6 and 0.5 are 0.35 : 0.15 : 0.5.
    pairs = columns([0.5, 0.6, 0.9], [0.5, 0.5, 1], tie=[0.2, 0.5, 0.1])
    assert three_label_accuracy(pairs).value == 1.0
    opinion = columns([0.51, 0.6, 0.9], [0.5, 0.5, 1], tie=[0.2, 0.5, 0.1])
    assert three_label_accuracy(opinion).value == pytest.approx(2 / 3)


def test_baselines_that_look_at_nothing():
    """Four pairs, one of them a tie; of the strict ones the lower index wins two."""
    pairs = columns([0.9] * 4, [1, 1, 0, 0.5])
    strict = pair_accuracy(pairs)
    assert (strict.always_first, strict.chance, strict.always_tie) == pytest.approx((2 / 3, 1 / 2, 0))
    half = half_tie_accuracy(pairs, 0.0)
    assert (half.always_first, half.chance, half.always_tie) == pytest.approx((2.5 / 4, 1 / 2, 2.5 / 4))
    exact = tie_calibrated_accuracy(pairs, 0.0)
    assert (exact.always_first, exact.chance, exact.always_tie) == pytest.approx((2 / 4, 1.5 / 4, 1 / 4))


def test_the_lower_index_wins_whichever_way_round_the_pair_is_written():
    pairs = columns([0.9, 0.1], [1, 0], lower_first=[True, False])
    assert pair_accuracy(pairs).always_first == 1.0


def test_what_was_not_judged_counts_for_no_definition():
    whole, holed = columns(P, TARGET), columns([*P, np.nan, np.nan], [*TARGET, 1, 0.5])
    for define in (pair_accuracy, prompt_accuracy, three_label_accuracy):
        assert define(holed).value == define(whole).value
    assert pair_accuracy(holed).unjudged == 1
    assert half_tie_accuracy(holed, 0.2).unjudged == 2
    nothing = tie_calibrated_accuracy(columns([np.nan], [1]), 0.1)
    assert math.isnan(nothing.value) and math.isnan(nothing.low) and math.isnan(nothing.chance)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 0.7, 1.0]), st.integers(0, 3)),
        min_size=1,
    ),
    threshold=st.floats(0, 1),
    data=st.data(),
)
def test_no_definition_depends_on_the_order_of_pairs_or_on_how_they_are_written(rows, threshold, data):
    p, target, prompt = (np.array(column) for column in zip(*rows, strict=True))
    order = data.draw(st.permutations(range(len(rows))))
    swap = np.array(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))[order]
    one = columns(p, target, prompt=prompt)
    # 1 - p is exact for a float32 p.
    p, target = p[order], target[order]
    other = columns(np.where(swap, 1 - p, p), np.where(swap, 1 - target, target), prompt=prompt[order])
    for define in (
        pair_accuracy,
        prompt_accuracy,
        three_label_accuracy,
        lambda pairs: half_tie_accuracy(pairs, threshold),
        lambda pairs: tie_calibrated_accuracy(pairs, threshold),
    ):
        before, after = define(one), define(other)
        assert after.value == pytest.approx(before.value, nan_ok=True)
        assert after.pairs == before.pairs
        assert not before.value > 1 and not before.value < 0


def test_tie_calibration_finds_what_trying_every_threshold_finds():
    generator = np.random.default_rng(0)
    for _ in range(30):
        p = np.round(generator.random(25), 2)
        pairs = columns(p, generator.choice([0, 0.5, 1], size=25), weight=generator.uniform(0.5, 2, 25))
        labels = np.sign(pairs.target - 0.5)
        best = max(
            np.average(verdict(pairs.p, t) == labels, weights=pairs.weight) for t in np.linspace(0, 1, 2001)
        )
        found = fit_tie_threshold(pairs)
        assert tie_calibrated_accuracy(pairs, found).value == pytest.approx(best)


def test_the_thresholds_by_hand():
    # Ties of the dataset have margins 0.12 and 0.28, strict pairs 0.6 and 0.8: half way from 0.28 to 0.6.
    pairs = columns([0.56, 0.64, 0.2, 0.9], [0.5, 0.5, 0, 1])
    assert fit_tie_threshold(pairs) == pytest.approx(0.44)
    assert fit_half_tie_threshold(pairs) == pytest.approx(0.3)


def test_without_ties_in_the_data_the_judge_never_says_tie():
    pairs = columns([0.6, 0.9, 0.3], [1, 1, 0])
    assert fit_tie_threshold(pairs) == fit_half_tie_threshold(pairs) == 0.0


def test_where_all_are_ties_everything_is_one():
    pairs = columns([0.6, 0.9, 0.3], [0.5, 0.5, 0.5])
    assert tie_calibrated_accuracy(pairs, fit_tie_threshold(pairs)).value == 1.0


def test_a_threshold_fitted_on_what_it_is_measured_on_flatters():
    """A judge and labels that know nothing of each other: on fresh pairs nothing is left of the gain."""
    generator = np.random.default_rng(3)
    own, fresh = [], []
    for _ in range(40):
        here, there = (
            columns(generator.random(20), generator.choice([0, 0.5, 1], size=20)) for _ in range(2)
        )
        threshold = fit_tie_threshold(here)
        own.append(tie_calibrated_accuracy(here, threshold).value)
        fresh.append(tie_calibrated_accuracy(there, threshold).value)
    assert np.mean(own) > np.mean(fresh) + 0.05
    assert np.mean(fresh) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    "calibration", [TemperatureScaling(temperature=2.5), PowerScaling(temperature=2.0, power=1.3)]
)
def test_thresholds_follow_a_calibration(calibration: CalibrationMap):
    generator = np.random.default_rng(1)
    z = generator.normal(size=300) * 3
    thresholds = Thresholds(split="validation", pairs=300, half_tie=0.4, tie_calibrated=0.37)
    softer = thresholds.calibrated(calibration)
    p, mapped = (1 / (1 + np.exp(-x)) for x in (z, calibration.apply(z)))
    for name in ("half_tie", "tie_calibrated"):
        before = verdict(p, getattr(thresholds, name))
        assert np.array_equal(before, verdict(mapped, getattr(softer, name)))
        assert 0 < np.sum(before == 0) < 300
    whole = Thresholds(split="v", pairs=1, half_tie=0.0, tie_calibrated=1.0)
    assert whole.calibrated(calibration) == whole
