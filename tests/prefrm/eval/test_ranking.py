import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prefrm.eval import intransitive_triples, spearman_rho
from prefrm.winmatrix import WinMatrix


def of(logits, errors=None):
    return WinMatrix.from_order_logits(np.array(logits, float), errors=errors)


ROCK_PAPER_SCISSORS = [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]


def test_rock_paper_scissors_is_intransitive():
    assert intransitive_triples([of(ROCK_PAPER_SCISSORS)]) == (1, 1)
    assert intransitive_triples([of(np.transpose(ROCK_PAPER_SCISSORS))]) == (1, 1)


def test_a_triple_with_an_inferred_pair_is_no_judged_triple():
    logits = np.zeros((4, 4))
    logits[:3, :3] = ROCK_PAPER_SCISSORS
    logits[3, :3] = np.nan
    u = np.arange(4.0)
    matrix = of(logits).with_inferred(u[:, None] - u[None, :])
    assert np.isfinite(matrix.p).all()
    assert intransitive_triples([matrix]) == (1, 1)


def test_a_cycle_and_something_that_beats_all_of_it():
    logits = np.zeros((4, 4))
    logits[:3, :3] = ROCK_PAPER_SCISSORS
    logits[3, :3], logits[:3, 3] = 1, -1
    assert intransitive_triples([of(logits), of(ROCK_PAPER_SCISSORS)]) == (2, 5)


@pytest.mark.parametrize(
    ("ab", "bc", "ca", "intransitive"),
    [
        (0, 0, 0, False),  # all equal
        (1, -1, 0, False),  # a and c equal, both better than b
        (-1, 1, 0, False),  # a and c equal, both worse than b
        (1, 1, -1, False),  # a, b, c
        (1, 0, 0, True),  # a beats b, and both equal c
        (1, 1, 0, True),  # a beats b beats c, which equals a
        (-1, -1, 0, True),
    ],
)
def test_a_ranking_may_hold_ties_and_ties_may_break_it(ab, bc, ca, intransitive):
    matrix = of([[0, ab, -ca], [-ab, 0, bc], [ca, -bc, 0]])
    assert intransitive_triples([matrix]) == (int(intransitive), 1)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=3, max_size=6))
def test_utilities_are_transitive_however_many_are_equal(u):
    wrong, total = intransitive_triples([of(np.subtract.outer(u, u))])
    assert (wrong, total) == (0, math.comb(len(u), 3))


def test_a_coin_makes_a_cycle_of_every_fourth_triple():
    z = np.random.default_rng(0).normal(size=(40, 40))
    wrong, total = intransitive_triples([of(z - z.T)])
    assert total == math.comb(40, 3)
    assert wrong / total == pytest.approx(0.25, abs=0.03)


def test_a_triple_without_a_verdict_is_not_counted():
    assert intransitive_triples([of(ROCK_PAPER_SCISSORS, errors=("", "", "unreadable"))]) == (0, 0)
    one_pair = np.array(ROCK_PAPER_SCISSORS, float)
    one_pair[0, 1] = np.nan
    assert intransitive_triples([of(one_pair), of([[0, 1], [-1, 0]])]) == (0, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_spearmans_rho_is_scipys(pairs):
    a, b = zip(*pairs, strict=True)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman_rho(a, b))
    else:
        assert spearman_rho(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


@settings(deadline=None)
@given(a=st.lists(st.integers(-5, 5), min_size=2, max_size=8, unique=True))
def test_spearmans_rho_sees_the_order_alone(a):
    assert spearman_rho(a, np.arctan(a) * 3 + 1) == pytest.approx(1.0)
    assert spearman_rho(a, -np.array(a)) == pytest.approx(-1.0)
