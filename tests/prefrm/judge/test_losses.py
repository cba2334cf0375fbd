"""The losses against values worked out by hand."""

import math

import pytest
import torch

from prefrm.judge import verdict_cross_entropy


def loss(log_odds: list[float], p: list[float], weight: list[float] | None = None) -> float:
    weights = None if weight is None else torch.tensor(weight)
    return verdict_cross_entropy(torch.tensor(log_odds), torch.tensor(p), weights).item()


def test_no_opinion_costs_ln_2_whatever_the_target():
    assert loss([0.0, 0.0, 0.0], [1.0, 0.5, 0.1]) == pytest.approx(math.log(2))


def test_a_strict_target_is_bradley_terry():
    # sigmoid(ln 3) = 3/4
    assert loss([math.log(3)], [1.0]) == pytest.approx(-math.log(3 / 4))
    assert loss([math.log(3)], [0.0]) == pytest.approx(-math.log(1 / 4))


def test_a_soft_target_mixes_both_sides():
    expected = -0.8 * math.log(3 / 4) - 0.2 * math.log(1 / 4)
    assert loss([math.log(3)], [0.8]) == pytest.approx(expected)


def test_the_same_pair_shown_the_other_way_round_costs_the_same():
    assert loss([1.7], [0.3]) == pytest.approx(loss([-1.7], [0.7]))


def test_weights_make_a_weighted_mean():
    alone = loss([math.log(3)], [1.0]), loss([math.log(3)], [0.0])
    assert loss([math.log(3)] * 2, [1.0, 0.0], [3.0, 1.0]) == pytest.approx((3 * alone[0] + alone[1]) / 4)


def test_the_minimum_is_where_the_judge_says_p():
    z = torch.zeros(1, requires_grad=True)
    z_star = math.log(0.8 / 0.2)
    verdict_cross_entropy(z + z_star, torch.tensor([0.8])).backward()
    assert z.grad is not None and abs(z.grad.item()) < 1e-6


def test_half_precision_log_odds_are_reduced_in_float32():
    value = verdict_cross_entropy(torch.tensor([20.0], dtype=torch.bfloat16), torch.tensor([1.0]))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.log1p(math.exp(-20.0)), rel=1e-4)
