"""The drift-diffusion model: its density, recovery of its parameters, its certainty."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from prefrm.answers.response_times import (
    MIN_TIMES,
    DriftDiffusion,
    fit_drift_diffusion,
    read_response_times,
    simulate_drift_diffusion,
)
from prefrm.errors import ConfigError
from tests.prefrm.answers.test_annotators import answer

ANNOTATOR = DriftDiffusion(bound=1.2, spread=1.5, delay=0.4, inattention=0.05, longest=10.0)


def simulated(annotator: DriftDiffusion, n: int, seed: int = 0):
    """Drifts, answers and times of `n` pairs."""
    rng = np.random.default_rng(seed)
    drift = rng.normal(0, annotator.spread, n)
    return drift, *simulate_drift_diffusion(annotator, drift, rng)


def test_the_density_of_times_has_a_mass_of_one() -> None:
    times = np.linspace(1e-4, 10, 200_001)
    density = np.exp([ANNOTATOR.log_likelihood([t]) for t in times[::100]])
    assert np.trapezoid(density, times[::100]) == pytest.approx(1, abs=2e-3)


def test_the_simulation_has_the_moments_of_the_closed_form() -> None:
    """P(z = 1) = 1 / (1 + exp(-2 a v)) and E[t] = (a / v) tanh(a v) + t0; their ratio is v / a."""
    sure = DriftDiffusion(bound=1.1, spread=1.0, delay=0.3, inattention=1e-9, longest=10.0)
    v = 0.7
    answers, times = simulate_drift_diffusion(sure, np.full(20_000, v), np.random.default_rng(0))
    assert np.mean(answers == 1) == pytest.approx(1 / (1 + math.exp(-2 * 1.1 * v)), abs=0.01)
    assert np.mean(times) - 0.3 == pytest.approx(1.1 / v * math.tanh(1.1 * v), rel=0.02)


@pytest.mark.parametrize(
    "annotator",
    [
        ANNOTATOR,
        DriftDiffusion(bound=0.7, spread=2.0, delay=0.3, inattention=0.1, longest=10.0),
        # A slow one: times in seconds are not what the search expects.
        DriftDiffusion(bound=2.5, spread=0.5, delay=1.5, inattention=0.05, longest=60.0),
    ],
)
def test_parameters_and_readings_are_recovered(annotator: DriftDiffusion) -> None:
    _, _, times = simulated(annotator, 2000)
    found = fit_drift_diffusion(times)
    assert found is not None
    assert found.bound == pytest.approx(annotator.bound, rel=0.25)
    assert found.spread == pytest.approx(annotator.spread, rel=0.5)
    assert found.delay == pytest.approx(annotator.delay, rel=0.15)
    assert found.inattention == pytest.approx(annotator.inattention, abs=0.05)
    for name in ("certainty", "attention"):
        known, fitted = getattr(annotator, name)(times), getattr(found, name)(times)
        assert np.mean(np.abs(fitted - known)) < 0.08


def test_the_certainty_is_how_often_the_answer_is_the_true_preference() -> None:
    """In each quarter by certainty, the share of answers with the drift's sign is the mean probability.

    An answer of inattention is a coin's.
    """
    drift, answers, times = simulated(ANNOTATOR, 40_000)
    fitted = fit_drift_diffusion(times[:4000])
    attention = fitted.attention(times)
    p = attention * fitted.certainty(times) + (1 - attention) / 2
    right = answers * drift > 0
    observed = []
    for low, high in pairwise(np.quantile(p, [0, 0.25, 0.5, 0.75, 1])):
        chosen = (p >= low) & (p <= high)
        observed.append(right[chosen].mean())
        assert observed[-1] == pytest.approx(p[chosen].mean(), abs=0.04)
    assert observed == sorted(observed) and observed[-1] - observed[0] > 0.15


def test_quick_is_sure_but_quicker_than_a_hand_is_inattention() -> None:
    times = [0.05, 0.9, 3.0, 9.0]
    sure, attentive = ANNOTATOR.certainty(times), ANNOTATOR.attention(times)
    assert sure[1] > sure[2] > sure[3] > 0.5
    assert attentive[0] < 1e-6 and attentive[1] > 0.9


def test_readings_bring_utilities_closer_to_the_truth() -> None:
    """Logistic regression of the answers on features of pairs: soft labels name more preferences than hard
    ones."""
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        direction = rng.normal(size=20) / math.sqrt(20)
        features = rng.normal(size=(300, 20))
        answers, times = simulate_drift_diffusion(ANNOTATOR, ANNOTATOR.spread * features @ direction, rng)
        fitted = fit_drift_diffusion(times)
        hard = regress(features, (answers + 1) / 2, np.ones(300))
        soft = regress(features, 0.5 + answers * (fitted.certainty(times) - 0.5), fitted.attention(times))
        fresh = rng.normal(size=(4000, 20))
        accuracy = [np.mean((fresh @ found) * (fresh @ direction) > 0) for found in (hard, soft)]
        gains.append(accuracy[1] - accuracy[0])
    assert np.mean(gains) > 0.005


def regress(x, p, weight):
    """Newton's method on the cross-entropy with soft labels, with a weak prior."""
    found = np.zeros(x.shape[1])
    for _ in range(20):
        q = 1 / (1 + np.exp(-x @ found))
        hessian = (x * (weight * q * (1 - q))[:, None]).T @ x + 0.1 * np.eye(x.shape[1])
        found = found + np.linalg.solve(hessian, x.T @ (weight * (p - q)) - 0.1 * found)
    return found


def test_readings_are_of_each_annotator_alone_and_of_strict_answers() -> None:
    """Three times as slow reads the same; a tie, and an annotator with few times, have no reading."""
    _, _, times = simulated(ANNOTATOR, 100)
    answers = [
        replace(answer(1000 * k + n, name, n, "left"), response_s=float(k * times[n]))
        for k, name in ((1, "ada"), (3, "ben"))
        for n in range(100)
    ]
    few = [answer(5000 + n, "eve", n, "left") for n in range(MIN_TIMES - 1)]
    readings = read_response_times([*answers, *few, answer(9000, "ada", 200, "tie")])
    assert readings.keys() == {a.question.id for a in answers}
    ada, ben = ([readings[1000 * k + n].certainty for n in range(100)] for k in (1, 3))
    assert ben == pytest.approx(ada, abs=0.01)


def test_few_times_fit_nothing() -> None:
    assert fit_drift_diffusion(np.linspace(1, 2, MIN_TIMES - 1)) is None
    with pytest.raises(ConfigError, match="positive"):
        fit_drift_diffusion(np.zeros(MIN_TIMES))
