"""Response times by a drift-diffusion model: how surely a comparison was made.

An annotator gathers evidence about two candidates, x(t) = v t + W(t), W a Wiener process, and answers when it
first leaves (-a, a): Ratcliff, "A theory of memory retrieval", Psychological Review 85 (1978). The drift v is
the difference of the candidates' worth to the annotator, normal with mean 0 and standard deviation s over
pairs. What is measured is the time t of that plus a constant t0 for looking and pressing the key. The answer
z (1 for the first, -1 for the second) and the time have the density

    f(z, t | v) = exp(a v z - v^2 t / 2) f_a(t),

f_a being that of leaving through one bound without drift. So after an answer v is normal with mean
z a s^2 / (1 + s^2 t) and variance s^2 / (1 + s^2 t), and the probability that the annotator truly prefers
what the answer says is

    P(v z > 0 | z, t) = Phi(a s / sqrt(1 + s^2 t)):

a quick answer is a sure one. (That choices and times together tell more about a preference than choices is
the subject of Li et al., "Enhancing preference-based linear bandits via human response time", arXiv
2409.05798.)

a, s and t0 are fitted to an annotator's times by maximum likelihood, with v integrated out. A share of times
comes from something else, inattention or a finger that slipped, and is taken to be uniform between 0 and the
longest time (Ratcliff and Tuerlinckx, "Estimating parameters of the diffusion model", Psychonomic Bulletin &
Review 9, 2002); such an answer says nothing, so that one quicker than t0 is no sign of certainty.

Shapes: N answers.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.answers.store import Answer
from prefrm.errors import ConfigError, missing_extra
from prefrm.winmatrix import Doubles
from prefrm.winmatrix.probabilities import sigmoid

__all__ = [
    "MIN_TIMES",
    "DriftDiffusion",
    "TimeReading",
    "fit_drift_diffusion",
    "read_response_times",
    "simulate_drift_diffusion",
]


MIN_TIMES = 50
"""Answers without which an annotator's parameters are not fitted."""
TERMS = np.arange(-7, 8, dtype=np.float64)
ODD = np.arange(1, 16, 2, dtype=np.float64)
SMALL_TIME = 0.4
"""In units of (2 a)^2: below it the series for small times is used, above it that for large ones. The terms
that are left out are below 1e-20."""
PASSAGES = np.geomspace(5e-3, 100.0, 5_000)
"""Times of leaving (-1, 1) at which the density is tabulated; beyond them it is below 1e-20."""
STARTS = ((0.2, 0.5), (0.2, 2.0), (0.6, 0.5), (0.6, 2.0))
"""(t0 as a share of the lower quartile of the times, a s) from which the likelihood is maximised."""
# Of ln(a / sqrt(median time)), ln(a s), and the log-odds of t0 / median time and of the inattentive share:
# weak normal priors, and bounds between which the search stays.
PRIOR_MEAN = np.array([0.0, 0.0, 0.0, -3.0])
PRIOR_DEVIATION = np.array([2.0, 1.0, 3.0, 1.5])
BOUNDS = ((-3.0, 3.0), (-3.0, 2.0), (-7.0, 7.0), (-7.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeReading:
    """What the response time of a strict answer says of it.

    Attributes:
        certainty: probability, in [0.5, 1), that the annotator truly prefers what the answer says, if it was
            decided: a soft label.
        attention: probability, in [0, 1], that it was: a weight.
    """

    certainty: float
    attention: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDiffusion:
    """An annotator's parameters; the diffusion's unit is one per second.

    Attributes:
        bound: a > 0: evidence at which the annotator answers.
        spread: s > 0: standard deviation of the drift over pairs, per second.
        delay: t0 >= 0: seconds of a response that are no decision.
        inattention: share of answers that do not follow the model, in (0, 1).
        longest: seconds up to which those are spread.
    """

    bound: float
    spread: float
    delay: float
    inattention: float
    longest: float

    def certainty(self, response_s: npt.ArrayLike) -> Doubles:
        """The probability, in [0.5, 1), that a decision after these seconds [N] is the true preference."""
        decided = np.maximum(np.asarray(response_s, np.float64) - self.delay, 0.0)
        return np.asarray(_special().ndtr(self.bound * self.spread / np.sqrt(1 + self.spread**2 * decided)))

    def attention(self, response_s: npt.ArrayLike) -> Doubles:
        """The probability, in [0, 1], that an answer after these seconds [N] is a decision."""
        decided, other = self._densities(np.asarray(response_s, np.float64))
        return np.asarray(decided / (decided + other))

    def log_likelihood(self, response_s: npt.ArrayLike) -> float:
        """Of the times [N] alone, in nats: both answers are equally likely, whatever the time."""
        decided, other = self._densities(np.asarray(response_s, np.float64))
        return float(np.log(decided + other).sum())

    def _densities(self, times: Doubles) -> tuple[Doubles, Doubles]:
        """Of a decision and of inattention at each time, per second, each with its share."""
        t = np.maximum(times - self.delay, 0.0)
        precision = 1 + self.spread**2 * t
        shape = (self.bound * self.spread) ** 2 / (2 * precision)
        decided = 2 * _driftless(t, self.bound) * np.exp(shape) / np.sqrt(precision)
        return (1 - self.inattention) * decided, np.full_like(t, self.inattention / self.longest)


def fit_drift_diffusion(response_s: npt.ArrayLike) -> DriftDiffusion | None:
    """The parameters of one annotator, from the times of strict answers [N]; None if N < `MIN_TIMES`.

    Raises:
        ConfigError: a time is not positive.
        MissingExtraError: scipy is not installed.
    """
    times = np.asarray(response_s, np.float64)
    if times.size < MIN_TIMES:
        return None
    if not (np.isfinite(times) & (times > 0)).all():
        raise ConfigError("response times must be positive numbers of seconds")
    quartile, median = np.quantile(times, [0.25, 0.5])
    longest = float(times.max())
    scale = float(np.log(median)) / 2

    def at(x: Doubles) -> DriftDiffusion:
        bound, product, delay, inattention = (float(value) for value in x)
        return DriftDiffusion(
            bound=math.exp(scale + bound),
            spread=math.exp(product - scale - bound),
            # At most the median: most answers are decisions.
            delay=float(median * sigmoid(delay)),
            inattention=float(sigmoid(inattention)),
            longest=longest,
        )

    def cost(x: Doubles) -> float:
        prior = float((((x - PRIOR_MEAN) / PRIOR_DEVIATION) ** 2).sum()) / 2
        return prior - at(x).log_likelihood(times)

    found = []
    for share, product in STARTS:
        delay = share * quartile / median
        start = [0.0, math.log(product), math.log(delay / (1 - delay)), PRIOR_MEAN[3]]
        found.append(_minimize()(cost, start, method="L-BFGS-B", bounds=BOUNDS))
    return at(min(found, key=lambda result: float(result.fun)).x)


def read_response_times(answers: Iterable[Answer]) -> dict[int, TimeReading]:
    """The reading of each strict answer with a response time, by the id of its question.

    Parameters are fitted to each annotator's times. Answers of an annotator with fewer than `MIN_TIMES` of
    them, ties and answers without a time have no entry: nothing is known about them.
    """
    timed: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for answer in answers:
        if answer.is_strict and answer.response_s:
            timed[answer.question.annotator][answer.question.id] = answer.response_s
    readings: dict[int, TimeReading] = {}
    for given in timed.values():
        times = np.array(list(given.values()))
        if fitted := fit_drift_diffusion(times):
            certainty, attention = fitted.certainty(times), fitted.attention(times)
            for id, sure, attentive in zip(given, certainty, attention, strict=True):
                readings[id] = TimeReading(certainty=float(sure), attention=float(attentive))
    return readings


def simulate_drift_diffusion(
    parameters: DriftDiffusion, drift: npt.ArrayLike, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Answers z in {1, -1} and response times in seconds, both [N], to pairs with these drifts [N].

    Times without drift are drawn from their tabulated distribution; drift enters by rejection: the time's
    density is that without drift times cosh(a v) exp(-v^2 t / 2).
    """
    v = np.asarray(drift, np.float64)
    answer, times = np.zeros(len(v)), np.full(len(v), np.nan)
    waiting = np.arange(len(v))
    while len(waiting):
        t = parameters.bound**2 * _unit_passage(rng.random(len(waiting)))
        slope = v[waiting]
        accepted = rng.random(len(waiting)) < np.exp(-(slope**2) * t / 2)
        done = waiting[accepted]
        times[done] = t[accepted]
        # Given the time, the odds of the bounds are exp(2 a v).
        right = sigmoid(2 * parameters.bound * v[done])
        answer[done] = np.where(rng.random(len(done)) < right, 1.0, -1.0)
        waiting = waiting[~accepted]
    times += parameters.delay
    lapse = rng.random(len(v)) < parameters.inattention
    times[lapse] = parameters.longest * rng.random(int(lapse.sum()))
    answer[lapse] = rng.choice([1.0, -1.0], int(lapse.sum()))
    return answer, times


def _driftless(times: Doubles, bound: float) -> Doubles:
    """The density, per second, of leaving (-bound, bound) through its upper end at these times [N]."""
    u = times / bound**2
    return np.asarray(np.exp(np.interp(np.log(np.maximum(u, 1e-300)), *_log_density())) / bound**2)


@functools.cache
def _log_density() -> tuple[Doubles, Doubles]:
    """Logarithms of `PASSAGES` and of the density of leaving (-1, 1) through its upper end.

    Navarro and Fuss, "Fast and accurate calculations for first-passage times in Wiener diffusion models",
    Journal of Mathematical Psychology 53 (2009), equations 5 and 6, with the start in the middle.
    """
    u = PASSAGES[:, None] / 4
    place = 0.5 + 2 * TERMS
    early = (place * np.exp(-(place**2) / (2 * u))).sum(axis=1) / np.sqrt(2 * np.pi * u[:, 0] ** 3)
    sign = np.where(ODD % 4 == 1, 1.0, -1.0)
    late = np.pi * (sign * ODD * np.exp(-(ODD**2) * np.pi**2 * u / 2)).sum(axis=1)
    return np.log(PASSAGES), np.log(np.where(u[:, 0] < SMALL_TIME, early, late) / 4)


def _unit_passage(uniform: Doubles) -> Doubles:
    """Times of leaving (-1, 1) without drift, at these quantiles [N]."""
    density = 2 * _driftless(PASSAGES, 1.0)
    steps = np.diff(PASSAGES) * (density[1:] + density[:-1]) / 2
    distribution = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(np.interp(uniform, distribution / distribution[-1], PASSAGES))


def _special() -> Any:
    try:
        from scipy import special
    except ImportError as error:
        raise missing_extra("scipy", "data") from error
    return special


def _minimize() -> Any:
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise missing_extra("scipy", "data") from error
    return minimize
