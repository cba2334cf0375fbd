"""Intervals: exact where pairs are independent, and covering the truth where they are few or dependent."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from prefrm.eval.statistics import difference_interval, share_interval

RUNS = 400
# What is asserted of 95%: two and a half standard errors of `RUNS` runs below it.
LEAST = 0.92


def even(n: int) -> np.ndarray:
    return np.ones(n)


def share(values: list[float], prompt: list[int] | None = None) -> tuple[float, float]:
    places = range(len(values)) if prompt is None else prompt
    return share_interval(values, even(len(values)), np.array(places))


@pytest.mark.parametrize(
    ("right", "wrong", "bounds"),
    # Clopper and Pearson's, as any table has them.
    [
        (4, 0, (0.3976, 1.0)),
        (0, 4, (0.0, 0.6024)),
        (1, 0, (0.025, 1.0)),
        (9, 1, (0.5550, 0.9975)),
        (15, 5, (0.5090, 0.9134)),
    ],
)
def test_independent_pairs_have_the_exact_binomial_interval(
    right: int, wrong: int, bounds: tuple[float, float]
) -> None:
    assert share([1.0] * right + [0.0] * wrong) == pytest.approx(bounds, abs=1e-4)


def test_pairs_of_a_prompt_that_tell_the_same_count_once() -> None:
    values, prompts = [1.0, 1.0, 0.0, 1.0], [0, 1, 2, 3]
    once = share(values, prompts)
    assert share(np.repeat(values, 5).tolist(), np.repeat(prompts, 5).tolist()) == pytest.approx(once)
    # All right, nobody knows whether they tell the same.
    assert share([1.0] * 20, np.repeat(prompts, 5).tolist()) == pytest.approx(share([1.0] * 4))
    assert share([1.0, 1.0, 0.0], [7, 7, 7]) == pytest.approx(share([2 / 3]))


def test_prompts_that_agree_by_chance_are_no_evidence_beyond_their_pairs() -> None:
    low, high = share([1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1])
    assert low <= share([1.0, 0.0])[0] + 1e-9 and high >= share([1.0, 0.0])[1] - 1e-9


def test_a_weight_is_worth_what_it_counts() -> None:
    heavy = share_interval([1.0, 1.0, 1.0], np.array([1.0, 1e-9, 1e-9]), np.arange(3))
    assert heavy == pytest.approx(share([1.0]), abs=1e-6)


def test_nothing_has_no_interval() -> None:
    nothing = np.array([])
    for low, high in (share([]), difference_interval(nothing, nothing, nothing, [1.0])):
        assert math.isnan(low) and math.isnan(high)


def drawn_shares(
    generator: np.random.Generator, prompts: int, pairs: int, truth: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of each pair, beta-binomial within a prompt, and the prompt."""
    if correlation == 0:
        chance = np.full(prompts, truth)
    elif correlation == 1:
        chance = (generator.random(prompts) < truth).astype(float)
    else:
        rest = (1 - correlation) / correlation
        chance = generator.beta(truth * rest, (1 - truth) * rest, size=prompts)
    prompt = np.repeat(np.arange(prompts), pairs)
    return (generator.random(len(prompt)) < chance[prompt]).astype(float), prompt


def coverage(interval: Callable[[], tuple[float, float]], truth: float) -> float:
    bounds = [interval() for _ in range(RUNS)]
    return float(np.mean([low - 1e-9 <= truth <= high + 1e-9 for low, high in bounds]))


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("prompts", "pairs"), [(1, 4), (2, 2), (4, 1), (4, 6), (12, 3)])
def test_the_interval_of_a_share_covers_the_truth(
    prompts: int, pairs: int, correlation: float, truth: float
) -> None:
    generator = np.random.default_rng(0)

    def interval() -> tuple[float, float]:
        values, prompt = drawn_shares(generator, prompts, pairs, truth, correlation)
        return share_interval(values, even(len(values)), prompt)

    assert coverage(interval, truth) >= LEAST


@pytest.mark.parametrize("shares", [(0.2, 0.05), (0.02, 0.02), (0.6, 0.0)])
@pytest.mark.parametrize(("prompts", "pairs"), [(1, 4), (4, 1), (4, 4), (12, 3)])
def test_the_interval_of_a_difference_of_accuracies_covers_the_truth(
    prompts: int, pairs: int, shares: tuple[float, float]
) -> None:
    generator = np.random.default_rng(0)
    first, second = shares
    prompt = np.repeat(np.arange(prompts), pairs)

    def interval() -> tuple[float, float]:
        draw = generator.random(prompts * pairs)
        values = (draw < first).astype(float) - (draw > 1 - second)
        return difference_interval(values, even(len(values)), prompt, [1.0, -1.0])

    assert coverage(interval, first - second) >= LEAST


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("prompts", "pairs"), [(4, 1), (10, 1), (4, 4), (30, 1)])
def test_the_interval_of_a_difference_in_log_loss_covers_the_truth(
    prompts: int, pairs: int, scale: float
) -> None:
    """An overconfident judge and a timid one; with surer pairs (`scale`) mistakes are rare, and costly."""

    def losses(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        z = generator.normal(size=size) * scale
        said = np.where(generator.random(size) < 1 / (1 + np.exp(-z)), 1.0, -1.0)
        seen, other = (np.logaddexp(0, -y * 1.5 * z) - np.logaddexp(0, -y * 0.7 * z) for y in (said, -said))
        return seen, other

    truth = losses(np.random.default_rng(1), 1_000_000)[0].mean()
    generator = np.random.default_rng(0)
    prompt = np.repeat(np.arange(prompts), pairs)

    def interval() -> tuple[float, float]:
        seen, other = losses(generator, len(prompt))
        return difference_interval(seen, even(len(seen)), prompt, np.concatenate([seen, other]))

    assert coverage(interval, truth) >= LEAST
