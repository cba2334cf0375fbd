"""The chain from rewards to advantages, against published formulas and examples worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError, DataError
from prefrm.rewards import FLOW_GRPO, PREF_GRPO, AdvantageChain, group_keys, select, weighted_advantages
from prefrm.rewards.chain import diversity, intrinsic_rewards, majority

NAN = math.nan
BARE = AdvantageChain(center=False, scale="none", clip=None)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


class TestPublishedNormalizations:
    rewards = np.array([[0.2, 0.9, 0.4], [0.5, NAN, 0.1]])
    keys = ("a", "a", "a", "b", "b", "b")

    def test_pref_grpo(self):
        close(
            AdvantageChain().advantages({"r": self.rewards.ravel()}, self.keys),
            PREF_GRPO.advantages(self.rewards).ravel(),
        )

    def test_flow_grpo(self):
        chain = AdvantageChain(scale="batch", ddof=0, eps=1e-4)
        close(
            chain.advantages({"r": self.rewards.ravel()}, self.keys),
            FLOW_GRPO.advantages(self.rewards).ravel(),
        )

    def test_several_normalized_rewards_are_weighted_and_summed(self):
        rewards, weights = {"a": self.rewards, "b": self.rewards**2}, {"a": 0.4, "b": 0.6}
        chain = AdvantageChain(combine="normalized")
        actual = chain.advantages({n: r.ravel() for n, r in rewards.items()}, self.keys, weights=weights)
        close(actual, weighted_advantages(rewards, weights, PREF_GRPO).ravel())

    def test_the_sum_is_normalized_once(self):
        a, b = np.array([0.0, 1.0, 5.0]), np.array([2.0, 0.0, 1.0])
        both = AdvantageChain().advantages({"a": a, "b": b}, [0] * 3, weights={"b": 2.0})
        close(both, AdvantageChain().advantages({"sum": a + 2 * b}, [0] * 3))

    def test_superlinear_shaping(self):
        # Centered: -1, 0, 1 and -2, 2; to the power 1.5 in size; over the batch's population deviation.
        shaped = np.array([-1, 0, 1, -(2**1.5), 2**1.5])
        chain = AdvantageChain(power=1.5, scale="batch", ddof=0, eps=0.0)
        close(chain.advantages({"r": [1, 2, 3, 0, 4]}, [0, 0, 0, 1, 1]), shaped / math.sqrt(18 / 5))


@given(
    hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-9, 9, width=16) | st.just(NAN)),
    st.randoms(use_true_random=False),
    st.sampled_from(["group", "batch", "none"]),
)
def test_groups_need_not_be_contiguous_nor_of_one_size(rewards, random, scale):
    keys = [random.randrange(3) for _ in rewards]
    chain = AdvantageChain(scale=scale)
    order = sorted(range(len(keys)), key=lambda n: keys[n])
    scattered = chain.advantages({"r": rewards}, keys)
    np.testing.assert_allclose(
        scattered[order], chain.advantages({"r": rewards[order]}, [keys[n] for n in order]), atol=1e-9
    )
    assert np.array_equal(np.isnan(scattered), np.isnan(rewards))


@pytest.mark.parametrize("chain", [AdvantageChain(), AdvantageChain(power=1.5), AdvantageChain(scale="none")])
def test_a_group_of_equal_rewards_gets_exactly_zero(chain):
    assert chain.advantages({"r": [0.1] * 3 + [0.3, 0.1]}, [0, 0, 0, 1, 1])[:3].tolist() == [0.0] * 3


@pytest.mark.parametrize("combine", ["sum", "normalized", "vote"])
def test_a_missing_reward_changes_nothing_for_the_others(combine):
    chain = AdvantageChain(combine=combine)
    with_missing = chain.advantages({"r": [0.2, NAN, 0.9, 0.4]}, [0] * 4)
    assert math.isnan(with_missing[1])
    close(with_missing[[0, 2, 3]], chain.advantages({"r": [0.2, 0.9, 0.4]}, [0] * 3))


def test_a_win_rate_becomes_an_advantage_without_normalization():
    chain = AdvantageChain(signed=True, center=False, scale="none", clip=None)
    close(chain.advantages({"r": [0.0, 0.25, 1.0]}, [0] * 3), [-1.0, -0.5, 1.0])
    with pytest.raises(DataError, match="win rates in"):
        chain.advantages({"r": [0.5, 1.5]}, [0] * 2)


def test_soft_clip_comes_before_the_clip_and_the_division():
    chain = AdvantageChain(center=False, scale="none", soft_clip=2.0, clip=1.0, divide=4.0)
    close(chain.advantages({"r": [0.5, -100.0]}, [0, 0]), [2 * math.tanh(0.25) / 4, -0.25])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("positive", [0, 0, 3, 1, NAN]),
        ("negative", [-2, 0, 0, 0, NAN]),
        ("best", [0, 0, 1, 1, NAN]),
        ("best_worst", [-1, 0, 1, 0, NAN]),
    ],
)
def test_what_is_kept(keep, expected):
    chain = AdvantageChain(center=False, scale="none", clip=None, keep=keep)
    close(chain.advantages({"r": [-2.0, 0.0, 3.0, 1.0, NAN]}, [0, 0, 0, 1, 1]), expected)


def test_best_and_worst_of_equal_rewards_are_no_pair():
    chain = AdvantageChain(center=False, scale="none", keep="best_worst")
    assert chain.advantages({"r": [0.5, 0.5]}, [0, 0]).tolist() == [0.0, 0.0]


class TestVote:
    def test_by_hand(self):
        # 0 beats 1 by two rewards of three; 1 beats 2 by three; 0 and 2: a 1, b NaN, c -1 is a tie.
        a, b, c = [3.0, 1.0, 0.0], [2.0, 1.0, NAN], [0.0, 5.0, 1.0]
        votes = np.array([[a], [b], [c]])
        close(majority(votes, [1, 1, 1]), [[0.75, 0.5, 0.25]])

    def test_weights_decide(self):
        votes = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
        close(majority(votes, [0.4, 0.6]), [[0.0, 1.0]])

    def test_no_scale_of_a_reward_matters(self):
        chain = AdvantageChain(combine="vote")
        a, b = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.1, 0.2])
        close(
            chain.advantages({"a": a, "b": b}, [0] * 3), chain.advantages({"a": 1e3 * a**3, "b": b}, [0] * 3)
        )

    def test_nobody_to_compare_with(self):
        assert np.isnan(majority(np.array([[[1.0, NAN]]]), [1.0])).all()


def test_objective_weights_give_an_advantage_for_each_step():
    chain = AdvantageChain(center=False, scale="none", objective_weights=((1.0, 0.0), (0.5, 2.0)))
    actual = chain.advantages({"a": [1.0, 2.0], "b": [4.0, NAN]}, [0, 0], weights={"b": 0.1}, steps=4)
    close(actual, [[1.2, 1.2, 0.8, 0.8], [NAN] * 4])
    with pytest.raises(ConfigError, match="a row for each"):
        chain.advantages({"a": [1.0, 2.0]}, [0, 0], steps=4)


def test_diversity_is_one_more_reward():
    features, keys = [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]], [0, 0, 0, 1]
    # Within the first group: 1 to the orthogonal one, 0 to the parallel one.
    close(diversity(features, keys), [0.5, 1.0, 0.5, 0.0])
    chain = AdvantageChain(center=False, scale="none", diversity=0.1)
    advantages = chain.advantages({"r": [0.0, 1.0, 2.0, 3.0]}, keys, distances=diversity(features, keys))
    close(advantages, [0.05, 1.1, 2.05, 3.0])


def test_intrinsic_rewards_by_hand():
    # At each level the scores are one deviation below and above their mean; s (1 - s) is 1/4 and 3/16.
    rewards = intrinsic_rewards([[0.0, 7.0], [2.0, 3.0]], [0.5, 0.25])
    np.testing.assert_allclose(rewards, [(-1 / 4 + 3 / 16) / 2, (1 / 4 - 3 / 16) / 2], rtol=1e-5)


def test_group_keys():
    of = ([0, 0, 1], [5, 6, 5], [2, 2, 3])
    assert group_keys("prompt", *of) == [(0,), (0,), (1,)]
    assert group_keys("prompt_step", *of) == [(0, 2), (0, 2), (1, 3)]
    assert group_keys("prompt_seed_step", *of) == [(0, 5, 2), (0, 6, 2), (1, 5, 3)]


def test_select_keeps_the_best_and_the_worst_of_each_group():
    rewards, keys = [0.1, NAN, 0.9, 0.5, 0.7, 0.3], [0, 0, 0, 0, 0, 1]
    assert select(rewards, keys, best=1, worst=1) == [0, 2, 5]
    assert select(rewards, keys, best=2, worst=0) == [2, 4, 5]
    assert select(rewards, keys, best=0, worst=0) == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": 0.0}, "power"),
        ({"eps": -1.0}, "eps"),
        ({"clip": 0.0}, "clip"),
        ({"divide": -1.0}, "divide"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        AdvantageChain(**settings)


def test_weights_name_rewards():
    with pytest.raises(ConfigError, match="other"):
        BARE.advantages({"r": [1.0]}, [0], weights={"other": 1.0})
    with pytest.raises(DataError, match="3 finite"):
        BARE.advantages({"r": [1.0, 2.0]}, [0] * 3)
