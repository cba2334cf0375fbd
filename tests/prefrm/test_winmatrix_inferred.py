"""Entries that were inferred from judged pairs: where they stand, and what they count for."""

import math

import numpy as np
import pytest

from prefrm.errors import IncompleteMatrixError, RecordError
from prefrm.winmatrix import WinMatrix

nan = math.nan


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def part_judged():
    """Candidates 0-1 and 1-2 judged, 0-2 not; candidate 3 missing and 4 judged with nobody."""
    logits = np.full((5, 5), nan)
    logits[0, 1], logits[1, 0], logits[1, 2], logits[2, 1] = 1.0, -1.0, 2.0, -2.0
    return WinMatrix.from_order_logits(logits, errors=["", "", "", "gone", ""])


def test_inference_fills_the_gaps_and_nothing_else():
    judged = part_judged()
    u = np.array([5.0, 4.0, 2.0, 1.0, nan])
    matrix = judged.with_inferred(u[:, None] - u[None, :])
    assert np.argwhere(matrix.inferred).tolist() == [[0, 2], [2, 0]]
    assert matrix.p[0, 2] == np.float32(sigmoid(3.0))
    assert np.array_equal(matrix.valid, judged.valid)
    assert np.array_equal(matrix.p[judged.valid], judged.p[judged.valid])
    assert np.isnan(matrix.tie[0, 2]) and np.isnan(matrix.order_gap[0, 2])
    assert judged.reason(0, 2) == "the judge gave no finite answer for this pair"
    assert [matrix.reason(0, n) for n in (2, 3, 4)] == [
        "",
        "gone",
        "this pair was not judged, and no chain of judged pairs connects the two",
    ]
    # Another inference takes the place of the first, and one that knows nothing leaves it.
    assert matrix.with_inferred(np.zeros((5, 5))).p[0, 2] == 0.5
    assert matrix.with_inferred(np.full((5, 5), nan)).equals(matrix)


def test_an_inferred_opponent_counts_in_the_win_rate_and_completes_the_matrix():
    first = part_judged().subset([0, 1, 2])
    with pytest.raises(IncompleteMatrixError, match=r"\(0, 2\)"):
        first.win_rate()
    matrix = first.with_inferred(np.array([[0, 1, 3], [-1, 0, 2], [-3, -2, 0.0]]))
    assert matrix.win_rate()[0] == pytest.approx((sigmoid(1.0) + sigmoid(3.0)) / 2)
    assert matrix.win_rate(hard=True).tolist() == [1.0, 0.5, 0.0]
    # Inferred from others, which are not there any more.
    assert matrix.subset([0, 2]).judged.all()
    assert matrix.subset([0, 2]).win_rate()[0] == pytest.approx(sigmoid(3.0))


@pytest.mark.parametrize(
    ("log_odds", "message"),
    [
        (np.zeros((3, 3)), r"shape \[3, 3\]; 2 candidates need \[2, 2\]"),
        (np.ones((2, 2)), "not skew-symmetric"),
    ],
)
def test_what_is_no_inference_is_refused(log_odds, message):
    with pytest.raises(RecordError, match=message):
        WinMatrix.from_order_logits(np.zeros((2, 2))).with_inferred(log_odds)
