"""A budget of pairs against all of them: what is asked, what is inferred, and how good it is."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.eval.ranking import kendall_tau
from prefrm.rewards.budget import choose_and_fit
from prefrm.rewards.design import PRIOR_PRECISION
from prefrm.rewards.utilities import fit_utilities
from prefrm.winmatrix import WinMatrix


class Judge:
    """Answers from a matrix of log-odds and remembers the rounds."""

    def __init__(self, log_odds):
        self.log_odds = np.asarray(log_odds, dtype=float)
        self.rounds = []

    @property
    def asked(self):
        return [pair for pairs in self.rounds for pair in pairs]

    def __call__(self, pairs):
        self.rounds.append(list(pairs))
        return [self.log_odds[pair] for pair in pairs]


def transitive(size, seed=0):
    u = np.random.default_rng(seed).normal(0, 2, size)
    return u[:, None] - u[None, :]


def noisy(size, seed, noise):
    """Log-odds of utilities N(0, 2), each pair's own error added: some triples go round in a circle."""
    error = np.triu(np.random.default_rng(seed + 100).normal(0, noise, (size, size)), 1)
    return transitive(size, seed) + error - error.T


def completed(result):
    return np.where(np.isnan(result.judged), result.inferred, result.judged)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def win_rates(log_odds):
    p = sigmoid(log_odds)
    np.fill_diagonal(p, 0)
    return p.sum(axis=1) / (len(p) - 1)


def off_diagonal(size):
    return ~np.eye(size, dtype=bool)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 70), st.integers(0, 9))
def test_no_pair_is_asked_twice_and_the_budget_is_spent(size, spare, seed):
    judge = Judge(noisy(size, seed, 0.5))
    budget = max(size - 1, 0) + spare
    result = choose_and_fit(size, budget, judge)
    assert len(set(judge.asked)) == len(judge.asked) == result.asked
    assert result.asked == min(budget, size * (size - 1) // 2)
    assert all(0 <= i < j < size for i, j in judge.asked)
    assert result.rounds == len(judge.rounds)


@pytest.mark.parametrize(("size", "budget"), [(3, 2), (4, 4), (9, 8), (16, 40), (64, 63), (64, 256)])
def test_a_transitive_judge_is_recovered_from_its_part(size, budget):
    log_odds = transitive(size)
    result = choose_and_fit(size, budget, Judge(log_odds))
    assert np.isnan(result.judged).any()
    np.testing.assert_allclose(sigmoid(completed(result)), sigmoid(log_odds), atol=1e-6, equal_nan=False)


@pytest.mark.parametrize("size", [2, 3, 8, 64])
@pytest.mark.parametrize("beyond", [0, 1000])
def test_with_a_budget_for_all_pairs_nothing_is_inferred(size, beyond):
    judge = Judge(noisy(size, 1, 0.5))
    result = choose_and_fit(size, size * (size - 1) // 2 + beyond, judge)
    assert np.array_equal(result.judged[off_diagonal(size)], judge.log_odds[off_diagonal(size)])
    assert np.isnan(result.judged.diagonal()).all()
    assert np.isnan(result.inferred[off_diagonal(size)]).all()
    assert result.rounds == 1
    judge.log_odds[0, 1] = judge.log_odds[1, 0] = np.nan
    result = choose_and_fit(size, size * (size - 1) // 2 + beyond, judge)
    assert np.isnan(completed(result)[0, 1])


@pytest.mark.parametrize(("size", "budget"), [(5, 5), (6, 9), (64, 256)])
def test_what_was_judged_is_kept_and_what_was_not_is_inferred(size, budget):
    judge = Judge(noisy(size, 2, 0.5))
    result = choose_and_fit(size, budget, judge)
    judged = np.isfinite(result.judged)
    assert {(i, j) for i, j in np.argwhere(np.triu(judged)).tolist()} == set(judge.asked)
    assert np.array_equal(result.judged[judged], judge.log_odds[judged])
    assert np.array_equal(np.isfinite(result.inferred), ~judged)
    for log_odds in (result.judged, result.inferred):
        assert np.array_equal(log_odds, -log_odds.T, equal_nan=True)
    assert (result.inferred.diagonal() == 0).all()


@pytest.mark.parametrize("size", [3, 4, 7, 64])
def test_the_first_round_gives_everyone_two_opponents_and_connects_all(size):
    judge = Judge(transitive(size))
    choose_and_fit(size, size, judge)
    edges = np.zeros((size, size))
    for i, j in judge.rounds[0]:
        edges[i, j] = edges[j, i] = 1
    assert (edges.sum(axis=1) >= 2).all()
    assert (np.linalg.matrix_power(edges + np.eye(size), size) > 0).all()


def test_later_rounds_ask_what_shrinks_the_confidence_ellipsoid_most():
    """The first pair of a round, against the determinants of all possible next information matrices."""
    size = 7
    judge = Judge(noisy(size, 3, 0.5))
    choose_and_fit(size, 15, judge)
    for n in range(1, len(judge.rounds)):
        known = [pair for pairs in judge.rounds[:n] for pair in pairs]
        judged = np.zeros((size, size), bool)
        judged[tuple(np.transpose(known))] = True
        judged |= judged.T
        u = fit_utilities(sigmoid(judge.log_odds), judged, PRIOR_PRECISION)

        def volume(pairs, u=u):
            information = PRIOR_PRECISION * np.eye(size)
            for i, j in pairs:
                x = np.eye(size)[i] - np.eye(size)[j]
                p = sigmoid(u[i] - u[j])
                information += p * (1 - p) * np.outer(x, x)
            return np.linalg.slogdet(information)[1]

        open_pairs = [(i, j) for i in range(size) for j in range(i + 1, size) if (i, j) not in known]
        best = max(open_pairs, key=lambda pair: volume([*known, pair]))
        assert judge.rounds[n][0] == best


def test_a_round_does_not_ask_the_same_thing_twice():
    """Two clusters far apart: once a pair of one is chosen, a pair of the other tells more."""
    u = np.array([0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 9.3])
    judge = Judge(u[:, None] - u[None, :])
    choose_and_fit(8, 12, judge)
    first, second = judge.rounds
    assert len(first) == 8
    assert second[:2] == [(0, 3), (4, 7)]


@pytest.mark.parametrize("noise", [0.3, 0.4])
def test_four_pairs_a_candidate_keep_the_ranking_of_64_and_random_ones_keep_less(noise):
    chosen, random = [], []
    for seed in range(8):
        log_odds = noisy(64, seed, noise)
        truth = win_rates(log_odds)
        chosen.append(kendall_tau(truth, win_rates(completed(choose_and_fit(64, 256, Judge(log_odds))))))
        random.append(kendall_tau(truth, win_rates(at_random(log_odds, 256, seed))))
    assert np.mean(chosen) >= 0.95
    assert np.mean(chosen) > np.mean(random) + 0.005


def at_random(log_odds, budget, seed):
    """The same completion of pairs that were drawn uniformly."""
    i, j = np.triu_indices(len(log_odds), 1)
    drawn = np.random.default_rng(seed).permutation(len(i))[:budget]
    judged = np.zeros(log_odds.shape, bool)
    judged[i[drawn], j[drawn]] = judged[j[drawn], i[drawn]] = True
    u = fit_utilities(sigmoid(log_odds), judged, 1e-6)
    return np.where(judged, log_odds, u[:, None] - u[None, :])


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_cannot_be_judged_leave_nobody_out(seed):
    log_odds = transitive(16, seed)
    lost = np.triu(np.random.default_rng(seed).random((16, 16)) < 0.3, 1)
    log_odds[lost | lost.T] = np.nan
    judge = Judge(log_odds)
    result = choose_and_fit(16, 40, judge)
    assert result.asked == 40
    assert np.isnan([log_odds[pair] for pair in judge.asked]).any()
    np.testing.assert_allclose(sigmoid(completed(result)), sigmoid(transitive(16, seed)), atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_nobody_can_be_compared_with_costs_its_own_pairs(broken):
    log_odds = transitive(16)
    log_odds[5], log_odds[:, 5] = broken, -broken
    judge = Judge(log_odds)
    known = completed(choose_and_fit(16, 64, judge))
    assert np.isnan(known[5]).all() and np.isnan(known[:, 5]).all()
    others = np.delete(np.arange(16), 5)
    assert np.isfinite(known[np.ix_(others, others)][off_diagonal(15)]).all()


def test_a_candidate_that_can_be_compared_with_one_other_alone_is_found_a_place():
    truth = transitive(32)
    log_odds = truth.copy()
    log_odds[5], log_odds[:, 5] = np.nan, np.nan
    log_odds[5, 20], log_odds[20, 5] = truth[5, 20], truth[20, 5]
    result = choose_and_fit(32, 128, Judge(log_odds))
    np.testing.assert_allclose(sigmoid(completed(result)), sigmoid(truth), atol=1e-6)


def test_nothing_is_inferred_between_parts_that_were_never_compared():
    log_odds = transitive(12)
    log_odds[:6, 6:] = log_odds[6:, :6] = np.nan
    known = completed(choose_and_fit(12, 60, Judge(log_odds)))
    assert np.isnan(known[:6, 6:]).all() and np.isnan(known[6:, :6]).all()
    for part in (slice(6), slice(6, 12)):
        assert np.isfinite(known[part, part][off_diagonal(6)]).all()


def test_a_judge_that_answers_nothing_says_nothing_of_anybody():
    result = choose_and_fit(6, 10, Judge(np.full((6, 6), np.nan)))
    assert np.isnan(result.judged).all() and np.isnan(result.inferred).all()
    assert result.asked == 10


def test_a_judge_that_is_certain_of_everything_is_followed():
    truth = transitive(64)
    result = choose_and_fit(64, 256, Judge(np.sign(truth) * 1000))
    assert np.isfinite(completed(result)[off_diagonal(64)]).all()
    assert kendall_tau(win_rates(completed(result)), win_rates(truth)) > 0.85


def test_a_budget_makes_a_matrix_that_says_what_was_judged():
    judge = Judge(noisy(16, 5, 0.5))
    result = choose_and_fit(16, 48, judge)
    judged = WinMatrix.from_order_logits(result.judged, order_free=True)
    matrix = judged.with_inferred(result.inferred)
    matrix.require_complete()
    assert np.triu(matrix.valid, 1).sum() == 48
    assert {(int(i), int(j)) for i, j in np.argwhere(np.triu(matrix.valid, 1))} == set(judge.asked)
    np.testing.assert_allclose(matrix.win_rate(), win_rates(completed(result)), atol=1e-6)


def test_the_same_candidates_by_the_same_numbers_give_the_same_to_the_last_bit():
    one, other = (choose_and_fit(20, 60, Judge(noisy(20, 4, 0.5))) for _ in range(2))
    assert np.array_equal(one.judged, other.judged, equal_nan=True)
    assert np.array_equal(one.inferred, other.inferred, equal_nan=True)


def test_choosing_takes_no_time_beside_judging():
    judge, seconds = Judge(noisy(64, 0, 0.5)), []
    for _ in range(3):
        started = time.process_time()
        choose_and_fit(64, 256, judge)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.2
