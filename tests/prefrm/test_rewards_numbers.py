"""Rewards in whatever a trainer holds them: they are converted to the same numbers, or refused by name."""

import datetime
import math

import numpy as np
import pytest

from prefrm.errors import DataError, PrefrmError
from prefrm.rewards import PREF_GRPO, best_fraction, diffusion_nft_rewards, weighted_advantages
from prefrm.rewards.numbers import doubles

# Exact in half precision.
ROWS = [[0.5, 0.25, 1.0], [-2.0, 0.0, 0.125]]
WHOLE = [[1, 0, 1], [1, 1, 0]]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn"])
@pytest.mark.parametrize("grad", [False, True])
def test_tensors_of_any_precision_with_and_without_a_gradient(torch, dtype: str, grad: bool):
    rewards = torch.tensor(ROWS).to(getattr(torch, dtype)).requires_grad_(grad)
    assert np.array_equal(PREF_GRPO.advantages(rewards), PREF_GRPO.advantages(ROWS))
    assert np.array_equal(PREF_GRPO.advantages(rewards.flatten(), 3), PREF_GRPO.advantages(ROWS).ravel())
    assert np.array_equal(PREF_GRPO.advantages(list(rewards)), PREF_GRPO.advantages(ROWS))
    assert np.array_equal(diffusion_nft_rewards(rewards), diffusion_nft_rewards(ROWS))
    assert best_fraction(rewards[0], 0.5) == best_fraction(list(rewards[0]), 0.5) == [2, 0]
    weighted = weighted_advantages({"a": rewards}, {"a": 2.0}, PREF_GRPO)
    assert np.array_equal(weighted, weighted_advantages({"a": ROWS}, {"a": 2.0}, PREF_GRPO))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_whole_numbers_and_truth_values(torch, dtype: str):
    expected = PREF_GRPO.advantages(WHOLE)
    assert np.array_equal(PREF_GRPO.advantages(torch.tensor(WHOLE).to(getattr(torch, dtype))), expected)
    assert np.array_equal(PREF_GRPO.advantages(np.array(WHOLE, dtype=dtype)), expected)


@pytest.mark.parametrize(
    "rewards",
    [
        [0.5, None, 1.0],
        (0.5, math.nan, 1),
        [np.float16(0.5), np.float64("nan"), np.int8(1)],
        np.array([0.5, None, 1.0], dtype=object),
        np.array([0.5, math.nan, 1.0], dtype=np.float16),
    ],
    ids=str,
)
def test_a_missing_reward_is_nan(rewards):
    assert doubles(rewards).dtype == np.float64
    np.testing.assert_array_equal(doubles(rewards), [0.5, math.nan, 1.0])
    assert np.isnan(PREF_GRPO.advantages(rewards, 3)).tolist() == [False, True, False]


def test_what_is_no_number_is_refused_in_one_line(torch):
    for rewards in (
        [["0.5", "0.25"]],
        [[0.5, "high"]],
        "0.5",
        b"0.5",
        [[0.5, 0.25], [0.5]],
        [[0.5, 0.25j]],
        {"a": 0.5},
        {0.5, 0.25},
        object(),
        [[object(), 0.5]],
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        [[datetime.timedelta(1), datetime.timedelta(2)]],
        torch.tensor([[0.5j, 0.25]]),
        torch.empty(2, 2, device="meta"),
    ):
        for read in (PREF_GRPO.advantages, diffusion_nft_rewards, lambda r: best_fraction(r, 0.5)):
            with pytest.raises(DataError, match="rewards are real numbers") as refused:
                read(rewards)
            assert isinstance(refused.value, PrefrmError) and "\n" not in str(refused.value), rewards


def test_shapes_and_group_sizes_that_are_none(torch):
    with pytest.raises(DataError, match=r"group_size must be a whole number; received 2\.0"):
        PREF_GRPO.advantages([0.5, 0.25], 2.0)
    with pytest.raises(DataError, match=r"shape \[samples\]; received \[2, 3\]"):
        best_fraction(ROWS, 0.5)
    for value in (0.5, torch.tensor(0.5)):
        with pytest.raises(DataError, match=r"rewards have shape \[\]"):
            PREF_GRPO.advantages(value)
    assert PREF_GRPO.advantages([], 3).shape == (0,)
