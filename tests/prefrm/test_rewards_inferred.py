"""Rewards of a matrix that was judged in part and completed: what an inferred pair counts for."""

import numpy as np
import pytest

from prefrm.errors import IncompleteMatrixError
from prefrm.rewards import bradley_terry, copeland, hard_win_rate, pref_grpo_rewards, ranking
from prefrm.winmatrix import WinMatrix

CHAIN = np.array([3.0, 2.0, 1.0, 0.0])


def chain(inferred):
    """Four candidates of which only neighbours were judged, and what was inferred of the others."""
    z = CHAIN[:, None] - CHAIN[None, :]
    neighbours = np.abs(np.subtract.outer(range(4), range(4))) <= 1
    return WinMatrix.from_order_logits(np.where(neighbours, z, np.nan)).with_inferred(inferred)


def test_an_inferred_pair_is_won_or_lost_like_any_other():
    matrix = chain(CHAIN[:, None] - CHAIN[None, :])
    assert not matrix.valid.all()
    assert hard_win_rate(matrix) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert copeland(matrix).tolist() == [3, 1, -1, -3]
    assert pref_grpo_rewards(matrix).tolist() == [1, 0.667, 0.333, 0]
    assert ranking(matrix) == [0, 1, 2, 3]


def test_utilities_are_fitted_to_what_was_judged_whatever_was_inferred_of_the_others():
    for inferred in (CHAIN[:, None] - CHAIN[None, :], np.zeros((4, 4))):
        np.testing.assert_allclose(bradley_terry(chain(inferred)), CHAIN - 1.5, atol=1e-4)


def test_where_the_judged_pairs_were_cut_off_the_inferred_ones_count():
    matrix = chain(CHAIN[:, None] - CHAIN[None, :])
    np.testing.assert_allclose(bradley_terry(matrix.subset([0, 2])), [1, -1], atol=1e-4)
    np.testing.assert_allclose(bradley_terry(matrix.subset([0, 1, 3])), [4 / 3, 1 / 3, -5 / 3], atol=1e-4)


def test_what_is_neither_judged_nor_inferred_is_still_missing():
    matrix = chain(np.full((4, 4), np.nan))
    for reward in (hard_win_rate, copeland, bradley_terry, pref_grpo_rewards):
        with pytest.raises(IncompleteMatrixError, match=r"6 of 16 entries were not judged; \(0, 2\)"):
            reward(matrix)
