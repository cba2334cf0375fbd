import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.eval import Pairs, measure_calibration


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
    result = measure_calibration(pair_columns([0.9, 0.1, 0.9, 0.9, 0.6, 0.4], [1, 0, 1, 0, 1, 1]))
    assert result.ece == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.1)
    assert result.brier == pytest.approx((3 * 0.01 + 0.81 + 0.16 + 0.36) / 6)
    filled = {round(row.low, 2): (row.pairs, row.agreement) for row in result.table if row.pairs}
    assert filled == {0.6: (2, 0.5), 0.9: (4, 0.75)}


def test_a_tie_in_the_data_is_half_right():
    assert measure_calibration(pair_columns([0.8], [0.5])).table[6].agreement == 0.5


def test_ties_count_for_one_error_and_not_for_the_other():
    """At confidence 0.8: three strict pairs, all right, and one tie, half right; weights 1, 1, 1 and 3."""
    result = measure_calibration(pair_columns([0.8, 0.2, 0.8, 0.8], [1, 0, 1, 0.5], weight=[1, 1, 1, 3]))
    assert result.ece == pytest.approx(abs((3 + 1.5) / 6 - 0.8))
    assert result.ece_strict == pytest.approx(1 - 0.8)
    assert sum(row.pairs for row in result.table) == 4
    ties = measure_calibration(pair_columns([0.8], [0.5]))
    assert ties.ece == pytest.approx(0.3) and math.isnan(ties.ece_strict)


def test_a_certain_pair_falls_into_the_last_bin_and_an_undecided_one_into_the_first():
    table = measure_calibration(pair_columns([1.0, 0.0, 0.5], [1, 1, 1])).table
    assert (table[-1].pairs, table[-1].agreement) == (2, 0.5)
    assert (table[0].pairs, table[0].agreement) == (1, 0.5)


def test_what_was_not_judged_does_not_count():
    assert measure_calibration(pair_columns([0.9, np.nan], [1, 1])).ece == pytest.approx(0.1)
    empty = measure_calibration(pair_columns([np.nan], [1]))
    assert math.isnan(empty.ece) and math.isnan(empty.brier)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 0.7, 1.0])), min_size=1),
    st.data(),
)
def test_calibration_does_not_depend_on_how_candidates_are_numbered(rows, data):
    p, target = (np.array(column) for column in zip(*rows, strict=True))
    swap = np.array(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))
    one = measure_calibration(pair_columns(p, target))
    other = measure_calibration(pair_columns(np.where(swap, 1 - p, p), np.where(swap, 1 - target, target)))
    assert one.ece == pytest.approx(other.ece, abs=1e-9)
    assert [row.pairs for row in one.table] == [row.pairs for row in other.table]
