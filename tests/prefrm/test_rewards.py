"""Rewards and advantages, against literal formulas and examples worked by hand."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError, DataError, IncompleteMatrixError
from prefrm.rewards import (
    DANCE_GRPO,
    FLOW_GRPO,
    PREF_GRPO,
    REWARDS,
    AdvantageRule,
    PreferencePair,
    best_fraction,
    bradley_terry,
    copeland,
    diffusion_nft_rewards,
    dpo_pairs,
    group_advantages,
    hard_win_rate,
    pref_grpo_rewards,
    ranking,
    weighted_advantages,
    win_rate,
)
from prefrm.winmatrix import WinMatrix

NAN = math.nan


def from_p(p, **options):
    """The matrix of an order-free judge with these probabilities; NaN is a pair that was not judged."""
    with np.errstate(divide="ignore"):
        p = np.asarray(p, dtype=float)
        logits = np.clip(np.log(p) - np.log1p(-p), -1e3, 1e3)
    return WinMatrix.from_order_logits(logits, order_free=True, **options)


def from_utilities(u):
    u = np.asarray(u, dtype=float)
    return WinMatrix.from_order_logits(u[:, None] - u[None, :], order_free=True)


def from_verdicts(size, verdicts):
    """Pref-GRPO's votes: {(i, j): True if i won, False if j won, None if unreadable}, i < j."""
    p = np.full((size, size), 0.5)
    for (i, j), i_won in verdicts.items():
        p[i, j] = {True: 1.0, False: 0.0, None: 0.5}[i_won]
        p[j, i] = 1 - p[i, j]
    return from_p(p)


@st.composite
def matrices(draw):
    size = draw(st.integers(2, 6))
    logits = draw(hnp.arrays(np.float64, (size, size), elements=st.floats(-9, 9) | st.just(NAN)))
    u = draw(hnp.arrays(np.float64, size, elements=st.floats(-9, 9) | st.just(NAN)))
    return WinMatrix.from_order_logits(logits).with_inferred(u[:, None] - u[None, :])


EVERY_REWARD = REWARDS

# K <= 6 candidates or G groups of K, with NaN here and there.
REWARDS_GK = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.floats(-10, 10, width=16) | st.just(NAN),
)


@pytest.mark.parametrize("reward", EVERY_REWARD.values(), ids=EVERY_REWARD)
class TestEveryReward:
    @given(matrices(), st.randoms(use_true_random=False))
    def test_it_follows_a_permutation(self, reward, matrix, random):
        order = list(range(matrix.size))
        random.shuffle(order)
        direct = reward(matrix.permuted(order), on_missing="drop")
        np.testing.assert_allclose(direct, reward(matrix, on_missing="drop")[order], rtol=1e-5, atol=1e-5)

    @given(matrices())
    def test_it_is_nan_exactly_where_nobody_was_met(self, reward, matrix):
        values = reward(matrix, on_missing="drop")
        assert values.dtype == np.float32
        assert np.array_equal(np.isnan(values), ~matrix.judged)

    @given(matrices())
    def test_it_refuses_an_incomplete_matrix_by_default(self, reward, matrix):
        if matrix.known.all():
            assert np.array_equal(reward(matrix), reward(matrix, on_missing="drop"))
        else:
            with pytest.raises(IncompleteMatrixError):
                reward(matrix)

    @given(st.lists(st.integers(-8, 8), min_size=2, max_size=6))
    def test_it_ranks_as_the_utilities_behind_the_matrix(self, reward, utilities):
        values = reward(from_utilities(utilities))
        for i, a in enumerate(utilities):
            for j, b in enumerate(utilities):
                if a > b:
                    assert values[i] > values[j]
                elif a == b:
                    assert values[i] == pytest.approx(values[j], abs=1e-5)


def test_win_rates_are_the_matrix_own():
    matrix = from_utilities([2.0, 0.0, -1.0])
    assert np.array_equal(win_rate(matrix), matrix.win_rate())
    assert hard_win_rate(matrix).tolist() == [1.0, 0.5, 0.0]


def test_copeland_by_hand():
    # 0 beats 1 and ties with 2; 1 beats 2.
    p = [[0.5, 0.9, 0.5], [0.1, 0.5, 0.6], [0.5, 0.4, 0.5]]
    assert copeland(from_p(p)).tolist() == [1.0, 0.0, -1.0]
    p = [[0.5, 0.9, NAN], [0.1, 0.5, NAN], [NAN, NAN, 0.5]]
    scores = copeland(from_p(p), on_missing="drop")
    assert scores[:2].tolist() == [1.0, -1.0]
    assert np.isnan(scores[2])


class TestBradleyTerry:
    def test_two_candidates_by_hand(self):
        # sigmoid(u0 - u1) = 3/4 means u0 - u1 = ln 3.
        u = bradley_terry(from_p([[0.5, 0.75], [0.25, 0.5]]))
        np.testing.assert_allclose(u, [math.log(3) / 2, -math.log(3) / 2], rtol=1e-6)

    @given(st.lists(st.floats(-4, 4), min_size=2, max_size=8))
    def test_it_recovers_the_utilities_that_made_the_matrix(self, utilities):
        u = np.array(utilities) - np.mean(utilities)
        np.testing.assert_allclose(bradley_terry(from_utilities(u)), u, atol=2e-4)

    @given(matrices().filter(lambda m: m.valid.all()))
    def test_at_the_maximum_every_candidate_wins_as_often_as_expected(self, matrix):
        u = bradley_terry(matrix).astype(np.float64)
        expected = 1 / (1 + np.exp(u[None, :] - u[:, None]))
        np.testing.assert_allclose(matrix.p.sum(axis=1), expected.sum(axis=1), atol=1e-4)
        assert u.mean() == pytest.approx(0, abs=1e-5)

    def test_it_agrees_with_the_mm_algorithm(self):
        # Hunter (2004): gamma_i <- W_i / sum_j 1 / (gamma_i + gamma_j), W_i the wins of i.
        p = np.array([[0.5, 0.9, 0.3, 0.6], [0.1, 0.5, 0.8, 0.7], [0.7, 0.2, 0.5, 0.5], [0.4, 0.3, 0.5, 0.5]])
        off = ~np.eye(4, dtype=bool)
        wins, gamma = (p * off).sum(axis=1), np.ones(4)
        for _ in range(2000):
            gamma = wins / np.where(off, 1 / (gamma[:, None] + gamma[None, :]), 0).sum(axis=1)
        u = np.log(gamma) - np.log(gamma).mean()
        np.testing.assert_allclose(bradley_terry(from_p(p)), u, atol=1e-6)

    def test_a_prior_shrinks_by_the_amount_its_equation_says(self):
        # By symmetry u = (x, -x) with 3/4 - sigmoid(2x) = precision * x.
        x = float(bradley_terry(from_p([[0.5, 0.75], [0.25, 0.5]]), prior_precision=0.5)[0])
        assert 0.75 - 1 / (1 + math.exp(-2 * x)) == pytest.approx(0.5 * x, abs=1e-6)

    def test_a_chain_of_comparisons_is_enough(self):
        third = math.log(3)
        p = [[0.5, 0.75, NAN], [0.25, 0.5, 0.75], [NAN, 0.25, 0.5]]
        np.testing.assert_allclose(bradley_terry(from_p(p), on_missing="drop"), [third, 0, -third], atol=1e-6)

    def test_an_unbeaten_candidate_has_no_finite_utility(self):
        p = [[0.5, 1.0, 1.0], [0.0, 0.5, 0.6], [0.0, 0.4, 0.5]]
        with pytest.raises(ConfigError, match=r"candidates \[0\] beat candidates \[1, 2\] with certainty"):
            bradley_terry(from_p(p))
        u = bradley_terry(from_p(p), prior_precision=0.1)
        assert np.isfinite(u).all()
        assert u[0] > u[1] > u[2]

    def test_a_certain_circle_does_have_finite_utilities(self):
        p = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
        np.testing.assert_allclose(bradley_terry(from_p(p)), np.zeros(3), atol=1e-6)

    def test_parts_that_never_met_have_no_common_scale(self):
        p = np.full((4, 4), NAN)
        p[:2, :2] = p[2:, 2:] = [[0.5, 0.75], [0.25, 0.5]]
        with pytest.raises(IncompleteMatrixError, match=r"\[0, 1\] and \[2, 3\] were not compared"):
            bradley_terry(from_p(p), on_missing="drop")
        u = bradley_terry(from_p(p), on_missing="drop", prior_precision=1e-6)
        np.testing.assert_allclose(u, np.array([1, -1, 1, -1]) * math.log(3) / 2, atol=1e-5)

    def test_errors_name_the_groups_own_candidates(self):
        p = [[0.5, NAN, NAN], [NAN, 0.5, 1.0], [NAN, 0.0, 0.5]]
        with pytest.raises(ConfigError, match=r"candidates \[1\] beat candidates \[2\]"):
            bradley_terry(from_p(p), on_missing="drop")

    @pytest.mark.parametrize("precision", [1e-6, 1e-3, 1.0, 1e6])
    def test_certainty_under_a_prior_converges(self, precision):
        u = bradley_terry(from_utilities(np.arange(16) * 1000.0), prior_precision=precision)
        assert np.all(np.diff(u) > 0)

    @pytest.mark.parametrize("precision", [-1.0, 1e-9, NAN, math.inf])
    def test_a_bad_prior_is_refused(self, precision):
        with pytest.raises(ConfigError, match="prior_precision must be 0 or at least"):
            bradley_terry(from_utilities([0, 1]), prior_precision=precision)


VERDICTS = {(0, 1): True, (0, 2): True, (0, 3): False, (1, 2): True, (1, 3): False, (2, 3): None}


class TestPrefGRPO:
    """Pref-GRPO's own lines, one after the other, on a group of 4 with an unreadable answer."""

    @staticmethod
    def reference_rewards(size, verdicts):
        wins, compares = [0.0] * size, [0] * size
        for i in range(size):
            for j in range(i + 1, size):
                compares[i] += 1
                compares[j] += 1
                if verdicts[i, j] is None:
                    wins[i] += 0.5
                    wins[j] += 0.5
                else:
                    wins[i if verdicts[i, j] else j] += 1
        return [round(w / c, 3) for w, c in zip(wins, compares, strict=True)]

    @staticmethod
    def reference_advantages(rewards):
        mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
        return [min(5.0, max(-5.0, (r - mean) / (std + 1e-8))) for r in rewards]

    def test_the_worked_example(self):
        rewards = pref_grpo_rewards(from_verdicts(4, VERDICTS))
        assert rewards.tolist() == self.reference_rewards(4, VERDICTS) == [0.667, 0.333, 0.167, 0.833]
        advantages = PREF_GRPO.advantages(rewards, 4)
        # Mean 0.5; squared deviations 2 (0.167^2 + 0.333^2) = 0.277556, divided by 3: std 0.3041688...
        assert [round(a, 4) for a in advantages] == [0.549, -0.549, -1.0948, 1.0948]
        np.testing.assert_allclose(advantages, self.reference_advantages(rewards.tolist()), rtol=1e-14)

    @given(st.integers(2, 9), st.randoms(use_true_random=False))
    def test_any_votes(self, size, random):
        verdicts = {
            (i, j): random.choice([True, False, None]) for i in range(size) for j in range(i + 1, size)
        }
        matrix = from_verdicts(size, verdicts)
        assert pref_grpo_rewards(matrix).tolist() == self.reference_rewards(size, verdicts)

    def test_rounding_is_pythons(self):
        # One win and a tie of 40: 0.0375 lies just below the half, and numpy's round takes it for the half.
        verdicts = {(i, j): i != 0 for i in range(41) for j in range(i + 1, 41)}
        verdicts |= {(0, 1): True, (0, 2): None}
        reward = pref_grpo_rewards(from_verdicts(41, verdicts))[0]
        assert reward == round(1.5 / 40, 3) == 0.037 != np.round(1.5 / 40, 3)

    def test_an_unjudged_pair_is_not_half_a_win(self):
        with pytest.raises(IncompleteMatrixError):
            pref_grpo_rewards(WinMatrix.missing(["", "gone"]))

    def test_several_rewards_are_normalised_then_weighted_then_clipped(self):
        preference, clip_score = [0.667, 0.333, 0.167, 0.833], [0.31, 0.30, 0.28, 0.27]
        expected = [
            min(5.0, max(-5.0, 1.0 * a + 0.7 * b))
            for a, b in zip(
                self.reference_advantages(preference), self.reference_advantages(clip_score), strict=True
            )
        ]
        combined = weighted_advantages(
            {"preference": preference, "clip": clip_score}, {"preference": 1.0, "clip": 0.7}, PREF_GRPO, 4
        )
        np.testing.assert_allclose(combined, expected, rtol=1e-13)

    def test_float32_as_torch_computes_it(self):
        torch = pytest.importorskip("torch")
        rewards = torch.tensor([[0.667, 0.333, 0.167, 0.833], [0.5, 0.5, 0.25, 0.75]])
        expected = torch.stack([(r - r.mean()) / (r.std() + 1e-8) for r in rewards]).clamp(-5.0, 5.0)
        np.testing.assert_allclose(PREF_GRPO.advantages(rewards.numpy()), expected.numpy(), rtol=3e-6)


class TestFlowGRPO:
    @staticmethod
    def reference(rewards, prompts):
        """Flow-GRPO's statistics in numpy float64: the prompt's mean, the deviation of all rewards."""
        rewards, prompts = np.array(rewards, dtype=np.float64), np.array(prompts)
        advantages = np.zeros_like(rewards)
        for prompt in np.unique(prompts):
            own = rewards[prompts == prompt]
            advantages[prompts == prompt] = (own - np.mean(own)) / (np.std(rewards) + 1e-4)
        return np.clip(advantages, -5.0, 5.0)

    def test_the_worked_example(self):
        rewards = [0.9, 0.8, 0.4, 0.3, 0.2, 0.1]
        advantages = FLOW_GRPO.advantages(rewards, 3)
        # Variance of all six: (0.45^2 + 0.35^2 + 0.05^2 + 0.15^2 + 0.25^2 + 0.35^2) / 6 = 0.535 / 6.
        scale = math.sqrt(0.535 / 6) + 1e-4
        assert advantages.tolist() == pytest.approx([x / scale for x in (0.2, 0.1, -0.3, 0.1, 0.0, -0.1)])

    @given(hnp.arrays(np.float64, (5, 4), elements=st.floats(-10, 10)))
    def test_to_the_last_bit(self, rewards):
        expected = self.reference(rewards.ravel(), np.repeat(np.arange(5), 4))
        flat = np.ptp(rewards, axis=1) == 0
        ours = FLOW_GRPO.advantages(rewards.ravel(), 4).reshape(5, 4)
        assert np.array_equal(ours[~flat], expected.reshape(5, 4)[~flat])
        assert not ours[flat].any()


def test_dance_grpo_to_the_last_bit():
    rewards = np.random.default_rng(0).normal(size=(6, 12))
    expected = [(r - r.mean()) / (r.std(ddof=1) + 1e-8) for r in rewards]
    assert np.array_equal(DANCE_GRPO.advantages(rewards), np.clip(expected, -5, 5))


RULES = [
    AdvantageRule(ddof=ddof, eps=eps, scope=scope)
    for ddof in (0, 1)
    for eps in (0.0, 1e-8, 1e-4)
    for scope in ("group", "batch")
]


class TestAdvantages:
    @pytest.mark.parametrize("rule", RULES, ids=str)
    @given(REWARDS_GK)
    def test_nan_stays_nan_and_counts_for_nothing(self, rule, rewards):
        advantages = rule.advantages(rewards)
        assert np.array_equal(np.isnan(advantages), np.isnan(rewards))
        known = [row[~np.isnan(row)] for row in rewards]
        everything = np.concatenate(known)
        for row, ours in zip(known, advantages, strict=True):
            ours = ours[~np.isnan(ours)]
            if len(row) < 2 or np.ptp(row) == 0:
                assert not ours.any()
                continue
            spread = row if rule.scope == "group" else everything
            expected = (row - row.mean()) / (spread.std(ddof=rule.ddof) + rule.eps)
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)

    @given(st.floats(-1e6, 1e6), st.integers(1, 9))
    def test_equal_rewards_give_exactly_zero(self, reward, size):
        for rule in RULES:
            assert rule.advantages([reward] * size, size).tolist() == [0.0] * size

    def test_flat_and_list_shapes_agree(self):
        rewards = [[0.0, 1.0], [3.0, 3.5]]
        flat = group_advantages([0.0, 1.0, 3.0, 3.5], 2, ddof=0, eps=0.0)
        assert flat.tolist() == [-1.0, 1.0, -1.0, 1.0]
        assert group_advantages(rewards, ddof=0, eps=0.0).tolist() == [[-1.0, 1.0], [-1.0, 1.0]]

    def test_clip(self):
        rewards = [[0.0, 0.0, 0.0, 1.0]]
        assert group_advantages(rewards, ddof=0, eps=0.0, clip=1.0).max() == 1.0
        assert group_advantages(rewards, ddof=0, eps=0.0).max() == pytest.approx(math.sqrt(3))
        assert np.isnan(group_advantages([[NAN, 0.0, 1.0]], ddof=0, eps=0.0, clip=1.0)[0, 0])

    def test_a_nan_term_makes_the_sum_nan(self):
        rewards = {"a": [[0.0, 1.0]], "b": [[NAN, 1.0]]}
        combined = weighted_advantages(rewards, {"a": 1.0, "b": 1.0}, FLOW_GRPO)
        assert np.isnan(combined).tolist() == [[True, False]]

    @pytest.mark.parametrize(
        ("rewards", "size", "message"),
        [
            ([1.0, 2.0], None, r"shape \[2\]; pass \[groups, candidates\]"),
            ([1.0, 2.0, 3.0], 2, "not whole groups of 2"),
            ([1.0, 2.0], 0, "not whole groups of 0"),
            ([[1.0, 2.0]], 2, "not whole groups of 2"),
            ([[1.0, math.inf]], None, "a reward is infinite"),
        ],
    )
    def test_what_is_no_batch_of_groups_is_refused(self, rewards, size, message):
        with pytest.raises(DataError, match=message):
            PREF_GRPO.advantages(rewards, size)

    @pytest.mark.parametrize(
        "setting",
        [dict(ddof=2), dict(eps=-1.0), dict(eps=NAN), dict(scope="world"), dict(clip=0.0), dict(clip=NAN)],
    )
    def test_a_bad_rule_is_refused(self, setting):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            AdvantageRule(**{"ddof": 1, "eps": 0.0, **setting})

    @pytest.mark.parametrize("weights", [{}, {"a": 1.0}, {"a": 1.0, "c": 1.0}])
    def test_every_reward_needs_its_weight(self, weights):
        rewards = {"a": [[0.0, 1.0]], "b": [[0.0, 1.0]]}
        with pytest.raises(ConfigError, match="each reward needs a weight"):
            weighted_advantages(rewards, weights, PREF_GRPO)

    def test_rewards_of_different_batches_are_refused(self):
        with pytest.raises(DataError, match="different shapes"):
            weighted_advantages({"a": [[0, 1]], "b": [[0, 1], [1, 0]]}, {"a": 1.0, "b": 1.0}, PREF_GRPO)


class TestSelection:
    def test_dpo_pairs_by_hand(self):
        p = [[0.5, 0.75, 0.5], [0.25, 0.5, 0.125], [0.5, 0.875, 0.5]]
        assert dpo_pairs(from_p(p)) == [
            PreferencePair(chosen=2, rejected=1, margin=0.75),
            PreferencePair(chosen=0, rejected=1, margin=0.5),
        ]
        assert dpo_pairs(from_p(p), min_margin=0.5) == [PreferencePair(chosen=2, rejected=1, margin=0.75)]

    @given(matrices(), st.booleans())
    def test_dpo_pairs_are_the_strict_judged_ones_and_if_asked_for_the_inferred(self, matrix, inferred):
        pairs = dpo_pairs(matrix, inferred=inferred, on_missing="drop")
        asked = matrix.known if inferred else matrix.valid
        strict = {(i, j) for i, j in np.ndindex(matrix.p.shape) if asked[i, j] and matrix.p[i, j] > 0.5}
        assert {(pair.chosen, pair.rejected) for pair in pairs} == strict
        assert len(pairs) == len(strict)
        margins = [pair.margin for pair in pairs]
        assert margins == sorted(margins, reverse=True)
        if not matrix.known.all():
            with pytest.raises(IncompleteMatrixError):
                dpo_pairs(matrix)

    @pytest.mark.parametrize("margin", [-0.1, 1.0, NAN])
    def test_a_bad_margin_is_refused(self, margin):
        with pytest.raises(ConfigError, match="min_margin"):
            dpo_pairs(from_utilities([0, 1]), min_margin=margin)

    def test_raft_keeps_the_best(self):
        rewards = [0.1, 0.9, NAN, 0.5, 0.9, 0.2]
        assert best_fraction(rewards, 0.2) == [1]
        assert best_fraction(rewards, 0.6) == [1, 4, 3]
        assert best_fraction(rewards, 1.0) == [1, 4, 3, 5, 0]
        assert best_fraction(rewards, 0.001) == [1]
        assert best_fraction([NAN, NAN], 1.0) == []

    @pytest.mark.parametrize("alpha", [0.0, 1.1, NAN])
    def test_a_bad_fraction_is_refused(self, alpha):
        with pytest.raises(ConfigError, match="alpha"):
            best_fraction([1.0], alpha)

    def test_diffusion_nft_by_hand(self):
        assert diffusion_nft_rewards([-9, -5, -2.5, 0, 2.5, 5, 9]).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
        assert diffusion_nft_rewards([[1.0]], max_advantage=1.0).tolist() == [[1.0]]
        assert np.isnan(diffusion_nft_rewards([NAN])).all()
        with pytest.raises(ConfigError, match="max_advantage"):
            diffusion_nft_rewards([0.0], max_advantage=0.0)


def test_the_named_bradley_terry_reward_survives_a_certain_judge():
    certain = from_utilities([0.0, 1000.0, 2000.0])
    with pytest.raises(ConfigError, match="with certainty"):
        bradley_terry(certain)
    utilities = REWARDS["bradley_terry"](certain)
    assert np.isfinite(utilities).all()
    assert (np.diff(utilities) > 1).all()


def test_the_named_prior_hardly_shrinks_what_an_uncertain_judge_says():
    matrix = from_utilities([0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(REWARDS["bradley_terry"](matrix), bradley_terry(matrix), rtol=0.003)


@pytest.mark.parametrize("reward", [*EVERY_REWARD.values(), dpo_pairs])
def test_a_typo_in_on_missing_is_a_mistake(reward):
    with pytest.raises(ConfigError, match="received 'dorp'"):
        reward(from_utilities([0.0, 1.0]), on_missing="dorp")


def test_a_single_candidate_has_no_pref_grpo_reward():
    assert np.isnan(pref_grpo_rewards(from_utilities([0.0, 1.0]).subset([0]))).tolist() == [True]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8))
def test_a_ranking_is_stable_and_holds_everyone_once(utilities):
    order = ranking(from_utilities(np.array(utilities, float)))
    assert order == sorted(range(len(utilities)), key=lambda n: (-utilities[n], n))
