"""The losses against values worked out by hand."""

import math

import pytest
import torch

from prefrm.judge import (
    EmbeddingHead,
    ScalarHead,
    bradley_terry,
    bradley_terry_ties,
    preference_loss,
    uncertain_bradley_terry,
)


def loss(log_odds: list[float], p: list[float], weight: list[float] | None = None) -> float:
    weights = None if weight is None else torch.tensor(weight)
    return bradley_terry(torch.tensor(log_odds), torch.tensor(p), weights).item()


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
    bradley_terry(z + z_star, torch.tensor([0.8])).backward()
    assert z.grad is not None and abs(z.grad.item()) < 1e-6


def test_half_precision_log_odds_are_reduced_in_float32():
    value = bradley_terry(torch.tensor([20.0], dtype=torch.bfloat16), torch.tensor([1.0]))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.log1p(math.exp(-20.0)), rel=1e-4)


def outcomes(d: list[float]) -> torch.Tensor:
    d_N = torch.tensor(d)
    return ScalarHead(hidden=1, ties=True).compare(d_N, torch.zeros_like(d_N))


def test_ties_as_the_paper_writes_them():
    d, bar = 0.7, math.log(5)
    win, lose = (-math.log(1 / (1 + math.exp(-(sign * d - bar)))) for sign in (1, -1))
    tie = win + lose - math.log(5**2 - 1)
    for p, expected in ((1.0, win), (0.0, lose), (0.5, tie), (0.75, (win + tie) / 2)):
        found = bradley_terry_ties(outcomes([d]), torch.tensor([p])).item()
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_tie_is_cheapest_between_equals_and_a_win_is_not():
    cost = [bradley_terry_ties(outcomes([d]), torch.tensor([0.5])).item() for d in (-1.0, 0.0, 1.0)]
    assert cost[1] < cost[0] == pytest.approx(cost[2])
    wins = [bradley_terry_ties(outcomes([d]), torch.tensor([1.0])).item() for d in (0.0, 1.0, 5.0)]
    assert wins[0] > wins[1] > wins[2]


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 0.1), (-3.0, 5.0), (1.0, 8.0)])
@pytest.mark.parametrize("p", [1.0, 0.5, 0.2])
def test_the_loss_of_uncertain_log_odds_is_an_expectation(mean: float, deviation: float, p: float):
    found = preference_loss(torch.tensor([[mean, deviation]]), torch.tensor([p]))
    grid = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    shares = torch.exp(-(grid**2) / 2)
    z = mean + deviation * grid
    costs = torch.nn.functional.softplus(z) - p * z
    assert found.item() == pytest.approx(((costs * shares).sum() / shares.sum()).item(), abs=1e-3)


def test_certain_log_odds_cost_what_plain_ones_do_and_doubt_costs_more():
    z, p = torch.tensor([1.3, -0.4]), torch.tensor([1.0, 0.3])
    certain = torch.stack([z, torch.zeros(2)], dim=-1)
    weight = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(uncertain_bradley_terry(certain, p, weight), bradley_terry(z, p, weight))
    outcomes = torch.tensor([[1.0, 0.7]], requires_grad=True)
    preference_loss(outcomes, torch.tensor([0.0])).backward()
    assert outcomes.grad is not None and (outcomes.grad > 0).all()


def test_three_answers_cost_the_language_models_cross_entropy():
    logits = torch.randn(4, 3)
    target = torch.tensor([0, 1, 2, 0])
    p = torch.tensor([1.0, 0.0, 0.5, 1.0])
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(preference_loss(logits.log_softmax(-1), p), expected)


def test_a_general_preference_at_temperature_one_tenth():
    head = EmbeddingHead(hidden=2, size=2)
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    # <R a, b> = 1 * 0.8 - 0 * 0.6, over T = 0.1.
    assert preference_loss(head.compare(a, b), torch.ones(1)).item() == pytest.approx(
        -math.log(1 / (1 + math.exp(-8.0))), rel=1e-4
    )
