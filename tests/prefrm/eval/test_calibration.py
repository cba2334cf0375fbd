import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from prefrm.errors import ConfigError
from prefrm.eval import Pairs, apply_temperature, calibrate, fit_temperature, tempered
from prefrm.winmatrix import WinMatrix


def pair_columns(p, target, weight=None):
    n = len(p)
    return Pairs(
        p=np.array(p, float),
        order_gap=np.zeros(n),
        tie=np.full(n, np.nan),
        target=np.array(target, float),
        weight=np.ones(n) if weight is None else np.array(weight, float),
        prompt=np.arange(n),
        lower_first=np.ones(n, bool),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def test_ece_by_hand():
    """Four pairs at confidence 0.9 of which three are right, two at 0.6 of which one is.

    ECE = 4/6 * |0.75 - 0.9| + 2/6 * |0.5 - 0.6|; Brier = (3 * 0.01 + 0.81 + 0.16 + 0.36) / 6.
    """
    result = calibrate(pair_columns([0.9, 0.1, 0.9, 0.9, 0.6, 0.4], [1, 0, 1, 0, 1, 1]))
    assert result.ece == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.1)
    assert result.brier == pytest.approx((3 * 0.01 + 0.81 + 0.16 + 0.36) / 6)
    filled = {round(row.low, 2): (row.pairs, row.agreement) for row in result.table if row.pairs}
    assert filled == {0.6: (2, 0.5), 0.9: (4, 0.75)}


def test_a_tie_in_the_data_is_half_right():
    assert calibrate(pair_columns([0.8], [0.5])).table[6].agreement == 0.5


def test_ties_count_for_one_error_and_not_for_the_other():
    """At confidence 0.8: three strict pairs, all right, and one tie, half right; weights 1, 1, 1 and 3."""
    result = calibrate(pair_columns([0.8, 0.2, 0.8, 0.8], [1, 0, 1, 0.5], weight=[1, 1, 1, 3]))
    assert result.ece == pytest.approx(abs((3 + 1.5) / 6 - 0.8))
    assert result.ece_strict == pytest.approx(1 - 0.8)
    assert sum(row.pairs for row in result.table) == 4
    ties = calibrate(pair_columns([0.8], [0.5]))
    assert ties.ece == pytest.approx(0.3) and math.isnan(ties.ece_strict)


def test_a_certain_pair_falls_into_the_last_bin_and_an_undecided_one_into_the_first():
    table = calibrate(pair_columns([1.0, 0.0, 0.5], [1, 1, 1])).table
    assert (table[-1].pairs, table[-1].agreement) == (2, 0.5)
    assert (table[0].pairs, table[0].agreement) == (1, 0.5)


def test_what_was_not_judged_does_not_count():
    assert calibrate(pair_columns([0.9, np.nan], [1, 1])).ece == pytest.approx(0.1)
    empty = calibrate(pair_columns([np.nan], [1]))
    assert math.isnan(empty.ece) and math.isnan(empty.brier)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 0.7, 1.0])), min_size=1),
    st.data(),
)
def test_calibration_does_not_depend_on_how_candidates_are_numbered(rows, data):
    p, target = (np.array(column) for column in zip(*rows, strict=True))
    swap = np.array(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))
    one = calibrate(pair_columns(p, target))
    other = calibrate(pair_columns(np.where(swap, 1 - p, p), np.where(swap, 1 - target, target)))
    assert one.ece == pytest.approx(other.ece, abs=1e-9)
    assert [row.pairs for row in one.table] == [row.pairs for row in other.table]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fit_finds_the_temperature_that_was_applied(temperature):
    z = np.random.default_rng(0).normal(size=5000) * 1.5
    soft = sigmoid(z)
    assert fit_temperature(sigmoid(z * temperature), soft) == pytest.approx(temperature, rel=1e-3)


def test_the_fit_is_the_minimum_that_scipy_finds():
    generator = np.random.default_rng(1)
    z = generator.normal(size=400) * 3
    target = (generator.random(400) < sigmoid(z / 2)).astype(float)
    weight = generator.uniform(0.5, 2, size=400)
    effective = weight.sum() ** 2 / (weight**2).sum()
    drawn = target + (0.5 - target) * 2 / (effective + 2)

    def loss(log_temperature):
        p = sigmoid(z / math.exp(log_temperature))
        return -np.sum(weight * (drawn * np.log(p) + (1 - drawn) * np.log(1 - p)))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(sigmoid(z), target, weight) == pytest.approx(math.exp(best), rel=1e-5)


def test_a_fitted_temperature_calibrates():
    generator = np.random.default_rng(2)
    z = generator.normal(size=20_000) * 1.5
    target = (generator.random(20_000) < sigmoid(z)).astype(float)
    overconfident = sigmoid(3 * z)
    temperature = fit_temperature(overconfident[:10_000], target[:10_000])
    before = calibrate(pair_columns(overconfident[10_000:], target[10_000:])).ece
    after = calibrate(
        pair_columns(apply_temperature(overconfident[10_000:], temperature), target[10_000:])
    ).ece
    assert before > 0.1
    assert after < 0.02


def test_separable_data_gives_a_finite_temperature_that_more_data_sharpens():
    few, many = (fit_temperature([0.8, 0.2] * n, [1, 0] * n) for n in (2, 200))
    # At the optimum the judge says 1 - 1 / (n + 2), Platt's target for n pairs.
    assert apply_temperature(0.8, few) == pytest.approx(1 - 1 / 6, rel=1e-6)
    assert apply_temperature(0.8, many) == pytest.approx(1 - 1 / 402, rel=1e-6)


def test_exact_zeros_and_ones_are_finite():
    assert 0 < fit_temperature([0.0, 1.0, 1.0, 0.7], [0, 1, 0, 1]) < math.inf


def test_a_judge_that_is_always_wrong_gets_the_highest_temperature_and_a_warning(caplog):
    assert fit_temperature([0.9] * 50, [0] * 50) == pytest.approx(50, rel=1e-6)
    assert "the judge contradicts these labels" in caplog.text


def test_a_temperature_inside_the_range_is_no_cause_for_a_warning(caplog):
    fit_temperature([0.9, 0.8, 0.3], [1, 0, 0])
    assert not caplog.records


def test_undecided_pairs_leave_the_temperature_alone():
    assert fit_temperature([0.5, 0.5], [1, 0]) == 1.0


@pytest.mark.parametrize(
    ("p", "target", "message"), [([np.nan], [1], "none of the 1"), ([0.5, 0.5], [1], "one length")]
)
def test_a_fit_without_data_is_refused(p, target, message):
    with pytest.raises(ConfigError, match=message):
        fit_temperature(p, target)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ConfigError, match="positive and finite"):
        apply_temperature(0.5, temperature)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-6, 6), min_size=9, max_size=9),
    temperature=st.floats(0.3, 5),
    missing=st.booleans(),
    order_free=st.booleans(),
)
def test_a_tempered_matrix_is_the_one_that_the_tempered_judge_gives(logits, temperature, missing, order_free):
    """From p and the order gap alone: the log-odds of both orders come back, divided."""
    z = np.array(logits).reshape(3, 3)
    z = z - z.T if order_free else z
    errors = ("", "", "unreadable") if missing else None
    made = {"errors": errors, "order_free": order_free}
    result = tempered(WinMatrix.from_order_logits(z, **made), temperature)
    expected = WinMatrix.from_order_logits(z / temperature, **made)
    np.testing.assert_allclose(result.p, expected.p, atol=2e-4)
    np.testing.assert_allclose(result.order_gap, expected.order_gap, atol=2e-3)
    assert result.errors == expected.errors and np.array_equal(result.valid, expected.valid)


@pytest.mark.parametrize("order_free", [True, False])
def test_what_was_inferred_is_tempered_and_stays_inferred(order_free):
    u = np.array([1.0, -2.0, 0.5])
    z = np.subtract.outer(u, u)
    judged = np.where(np.eye(3)[::-1] == 1, np.nan, z)

    def judge(temperature):
        matrix = WinMatrix.from_order_logits(judged / temperature, order_free=order_free)
        return matrix.with_inferred(z / temperature)

    result, expected = tempered(judge(1.0), 2.5), judge(2.5)
    np.testing.assert_allclose(result.p, expected.p, atol=1e-6)
    assert np.array_equal(result.inferred, expected.inferred) and result.inferred[0, 2]


def test_tempering_changes_no_verdict_and_one_changes_nothing():
    z = np.random.default_rng(3).normal(size=(6, 6)) * 2
    matrix = WinMatrix.from_order_logits(z)
    assert np.array_equal(np.sign(tempered(matrix, 7.0).p - 0.5), np.sign(matrix.p - 0.5))
    np.testing.assert_allclose(tempered(matrix, 1.0).p, matrix.p, atol=1e-6)
    np.testing.assert_allclose(tempered(matrix, 1.0).order_gap, matrix.order_gap, atol=1e-6)
