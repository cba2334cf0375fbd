"""What is fitted to labels, on many pairs and on few, and matrices under it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from prefrm.errors import ConfigError
from prefrm.eval import (
    JudgedGroup,
    apply_calibration,
    fit_calibration,
    measure,
    measure_calibration,
)
from prefrm.records import Comparison
from prefrm.winmatrix import CalibrationMap, PowerScaling, TemperatureScaling, WinMatrix
from tests.prefrm.eval.test_calibration import pair_columns, sigmoid


@pytest.mark.parametrize(
    "applied",
    [
        TemperatureScaling(temperature=0.4),
        TemperatureScaling(temperature=3.0),
        PowerScaling(temperature=0.5, power=1.6),
        PowerScaling(temperature=2.0, power=0.7),
    ],
    ids=CalibrationMap.describe,
)
def test_the_fit_finds_the_map_that_is_missing(applied: CalibrationMap):
    """Labels by the true log-odds applied(x), a judge that says x."""
    x = np.random.default_rng(0).normal(size=20_000) * 1.5
    fitted = fit_calibration(sigmoid(x), sigmoid(applied.apply(x)))
    assert type(fitted) is type(applied)
    assert dict(fitted.parameters) == pytest.approx(applied.parameters, rel=6e-3)


def test_the_fit_is_the_minimum_that_scipy_finds():
    """The summed log loss of an effective number of pairs, and the squares of the log parameters."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=400) * 3
    target = (generator.random(400) < sigmoid(np.sign(x) * np.abs(x) ** 1.8 / 2)).astype(float)
    weight = generator.uniform(0.5, 2, size=400)
    scale = weight.sum() / (weight**2).sum()

    def cost(q):
        z = np.sign(x) * np.abs(x) ** math.exp(q[1]) / math.exp(q[0])
        losses = np.logaddexp(0, z) - target * z
        return scale * np.sum(weight * losses) + q[0] ** 2 / 2 + (q[1] / 0.5) ** 2 / 2

    best = minimize(cost, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    fitted = fit_calibration(sigmoid(x), target, weight)
    assert [fitted.temperature, fitted.power] == pytest.approx(np.exp(best), rel=1e-4)


def test_ties_and_strict_pairs_need_more_than_a_temperature():
    """Small log-odds are noise about ties, large ones are right; fitted on one half, measured on another."""
    generator = np.random.default_rng(2)
    strict = generator.random(8000) < 0.7
    x = np.where(strict, 2.0, 0.35) * generator.choice([-1, 1], 8000) + generator.normal(size=8000) * 0.3
    target = np.where(strict, generator.random(8000) < sigmoid(4 * x), 0.5)
    here, there = (slice(None, None, 2), slice(1, None, 2))
    fitted = fit_calibration(sigmoid(x[here]), target[here])
    assert isinstance(fitted, PowerScaling) and fitted.power > 1.2
    before, after = (
        measure_calibration(pair_columns(p, target[there])).ece
        for p in (sigmoid(x[there]), apply_calibration(sigmoid(x[there]), fitted))
    )
    assert before > 0.1 and after < 0.02


@pytest.mark.parametrize("log_odds", [0.2, 2.0, 10.0])
def test_five_pairs_neither_flatten_a_judge_nor_make_it_certain(log_odds: float):
    for target in (0.0, 0.5, 1.0):
        fitted = fit_calibration([sigmoid(log_odds)] * 5, [target] * 5)
        p = float(apply_calibration(sigmoid(log_odds), fitted))
        assert fitted.temperature < 25
        assert min(float(sigmoid(log_odds)), 0.6) * 0.9 < p
        assert p < max(0.98, 1.001 * float(sigmoid(log_odds)))


@pytest.mark.parametrize("pairs", [1, 5, 40])
def test_a_temperature_is_bounded_by_the_number_of_pairs(pairs: int):
    """log T <= n f, where f are the calibrated log-odds: what a judge that is always wrong gets at most."""
    p = sigmoid(3.0)
    fitted = fit_calibration([p] * pairs, [0.0] * pairs)
    calibrated_log_odds = fitted.apply(np.array(3.0))
    assert math.log(fitted.temperature) <= pairs * calibrated_log_odds


def test_few_pairs_do_not_ask_for_a_power():
    generator = np.random.default_rng(5)
    kinds = []
    for _ in range(50):
        x = generator.normal(size=20) * 2
        kinds.append(fit_calibration(sigmoid(x), generator.random(20) < sigmoid(x)))
    assert sum(isinstance(kind, TemperatureScaling) for kind in kinds) > 40
    assert all(0.2 < kind.temperature < 5 for kind in kinds)


def test_more_pairs_that_all_agree_make_a_judge_more_certain():
    few, many = (apply_calibration(0.8, fit_calibration([0.8, 0.2] * n, [1, 0] * n)) for n in (2, 500))
    assert 0.8 < few < 0.97 < 0.99 < many < 1


def test_exact_zeros_and_ones_are_finite():
    assert 0 < fit_calibration([0.0, 1.0, 1.0, 0.7], [0, 1, 0, 1]).temperature < math.inf


def test_many_pairs_flatten_a_judge_that_contradicts_them():
    assert apply_calibration(0.9, fit_calibration([0.9] * 500, [0] * 500)) < 0.51


def test_undecided_pairs_leave_a_judge_as_it_is():
    assert fit_calibration([0.5, 0.5], [1, 0]) == TemperatureScaling(temperature=1.0)


@pytest.mark.parametrize(
    ("p", "target", "message"), [([np.nan], [1], "none of the 1"), ([0.5, 0.5], [1], "one length")]
)
def test_a_fit_without_data_is_refused(p, target, message):
    with pytest.raises(ConfigError, match=message):
        fit_calibration(p, target)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-6, 6), min_size=9, max_size=9),
    calibration=st.builds(PowerScaling, temperature=st.floats(0.3, 5), power=st.floats(0.6, 1.6))
    | st.builds(TemperatureScaling, temperature=st.floats(0.3, 5)),
    missing=st.booleans(),
    order_free=st.booleans(),
)
def test_a_calibrated_matrix_is_the_one_that_the_calibrated_judge_gives(
    logits, calibration, missing, order_free
):
    """From p and the order gap alone: the log-odds of both orders come back and are mapped."""
    z = np.array(logits).reshape(3, 3)
    z = z - z.T if order_free else z
    made = {"errors": ("", "", "unreadable") if missing else None, "order_free": order_free}
    result = WinMatrix.from_order_logits(z, **made).calibrated(calibration)
    expected = WinMatrix.from_order_logits(z, **made, calibration=calibration)
    np.testing.assert_allclose(result.p, expected.p, atol=2e-4)
    np.testing.assert_allclose(result.order_gap, expected.order_gap, atol=4e-3)
    assert result.errors == expected.errors and np.array_equal(result.valid, expected.valid)


@pytest.mark.parametrize("order_free", [True, False])
def test_log_odds_beyond_float32_are_calibrated_as_the_fit_sees_them(order_free):
    """p is 1 from log-odds of 17 on, and the fit takes such a judge to mean 16.6."""
    u = np.array([0.0, 20.0, 300.0, 5000.0])
    z = np.subtract.outer(u, u) + (0.0 if order_free else 5.0)
    calibration = PowerScaling(temperature=10.0, power=1.2)
    expected = WinMatrix.from_order_logits(z, order_free=order_free).calibrated(calibration)
    result = WinMatrix.from_order_logits(z, order_free=order_free, calibration=calibration)
    np.testing.assert_allclose(result.p, expected.p, atol=1e-6)
    holes = np.where(np.eye(4) == 1, z, np.nan)
    inferred = WinMatrix.from_order_logits(holes).with_inferred(z - z.T, calibration=calibration)
    np.testing.assert_allclose(inferred.p, expected.p, atol=1e-6)


def test_a_judge_that_is_far_too_certain_is_as_good_as_its_evaluation_says():
    generator = np.random.default_rng(7)
    true = generator.normal(size=4000) * 1.2
    target = (generator.random(4000) < sigmoid(true)).astype(float)
    logits = 20 * true[:, None, None] * np.array([[0.0, 1.0], [-1.0, 0.0]])
    fitted = fit_calibration([m.p[0, 1] for m in WinMatrix.all_from_order_logits(logits)], target)
    p = np.array([WinMatrix.from_order_logits(z, calibration=fitted).p[0, 1] for z in logits])
    assert measure_calibration(pair_columns(p, target)).ece < 0.04


def test_a_calibration_of_a_calibrated_judge_comes_after_its_own():
    """One map after the other, or both at once."""
    z = np.random.default_rng(4).normal(size=(5, 5)) * 1.5
    first, second = PowerScaling(temperature=0.8, power=1.4), TemperatureScaling(temperature=1.5)
    both = PowerScaling(temperature=0.8 * 1.5, power=1.4)
    result = WinMatrix.from_order_logits(z, calibration=first).calibrated(second)
    expected = WinMatrix.from_order_logits(z, calibration=both)
    np.testing.assert_allclose(result.p, expected.p, atol=1e-6)
    np.testing.assert_allclose(result.order_gap, expected.order_gap, atol=1e-5)


@pytest.mark.parametrize("calibration", [PowerScaling(temperature=0.5, power=p) for p in (0.6, 1.0, 1.7)])
@pytest.mark.parametrize("scale", [2, 30])
def test_no_calibration_changes_whether_the_orders_agree(calibration: CalibrationMap, scale: float):
    """Counted from the orders' own log-odds; the metric sees p and the order gap alone."""
    z = np.random.default_rng(6).normal(size=(12, 12)) * scale
    matrix = WinMatrix.from_order_logits(z, calibration=calibration)
    i, j = np.triu_indices(12, 1)
    comparisons = tuple(Comparison.preferred(int(a), int(b)) for a, b in zip(i, j, strict=True))
    group = JudgedGroup(id="g", prompt="p", comparisons=comparisons, quality=None, tags={}, matrix=matrix)
    agree = np.sign(z[i, j]) == -np.sign(z[j, i])
    assert 0.2 < agree.mean() < 0.8
    assert measure([group]).swap_consistency == pytest.approx(agree.mean())


@pytest.mark.parametrize("order_free", [True, False])
def test_what_was_inferred_is_calibrated_and_stays_inferred(order_free):
    u = np.array([1.0, -2.0, 0.5])
    z = np.subtract.outer(u, u)
    judged = np.where(np.eye(3)[::-1] == 1, np.nan, z)
    calibration = PowerScaling(temperature=2.5, power=1.3)

    def judge(applied):
        matrix = WinMatrix.from_order_logits(judged, order_free=order_free, calibration=applied)
        return matrix.with_inferred(z, calibration=applied)

    result, expected = judge(None).calibrated(calibration), judge(calibration)
    np.testing.assert_allclose(result.p, expected.p, atol=1e-6)
    assert np.array_equal(result.inferred, expected.inferred) and result.inferred[0, 2]


def test_a_calibration_changes_no_verdict_and_the_identity_changes_nothing():
    matrix = WinMatrix.from_order_logits(np.random.default_rng(3).normal(size=(6, 6)) * 2)
    flat = matrix.calibrated(PowerScaling(temperature=7.0, power=1.5))
    assert np.array_equal(np.sign(flat.p - 0.5), np.sign(matrix.p - 0.5))
    same = matrix.calibrated(TemperatureScaling(temperature=1.0))
    np.testing.assert_allclose(same.p, matrix.p, atol=1e-6)
    np.testing.assert_allclose(same.order_gap, matrix.order_gap, atol=1e-6)
