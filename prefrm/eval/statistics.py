"""Means and bootstrap intervals, which every part of an evaluation shares.

An interval draws whole prompts with replacement, since pairs of one prompt are not independent (a
cluster bootstrap, percentile interval). What has no data is NaN.

Shapes: N comparisons, Q prompts.
"""

import numpy as np
import numpy.typing as npt

from prefrm.eval.pairs import Doubles

__all__ = ["P_EPSILON", "SEED", "by_prompt", "cross_entropy", "interval", "mean", "ratio", "weighted_mean"]

DRAWS = 1000
SEED = 0
CONFIDENCE = 0.95
P_EPSILON = 2.0**-24
"""The largest float32 below 1 is 1 - 2^-24; a matrix that says 1 means no more than this."""


def by_prompt(
    values: npt.ArrayLike, weight: Doubles, prompt: npt.NDArray[np.int64]
) -> tuple[Doubles, Doubles]:
    """Each prompt's weighted sum of `values` [N], and the sum of its weights: [Q] each."""
    _, place = np.unique(prompt, return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(values, np.float64) * weight)
    totals = np.bincount(place, weights=weight)
    # Without a single comparison numpy's sums are whole numbers.
    return sums.astype(np.float64), totals.astype(np.float64)


def ratio(sums: Doubles, totals: Doubles) -> float:
    """`sum(sums) / sum(totals)`, NaN where there is nothing."""
    return float(sums.sum() / totals.sum()) if len(totals) else float("nan")


def interval(sums: Doubles, totals: Doubles, *, seed: int = SEED) -> tuple[float, float]:
    """The 95% interval of `sum(sums) / sum(totals)` of prompts [Q]; equal input gives equal bounds."""
    if not len(totals):
        return float("nan"), float("nan")
    # One prompt drawn n times out of n: multinomial counts, so no draw is ever materialised.
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=DRAWS)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile((counts @ sums) / (counts @ totals), [tail, 1 - tail])
    return float(low), float(high)


def cross_entropy(p: npt.ArrayLike, target: npt.ArrayLike) -> Doubles:
    """`-(t log p + (1 - t) log(1 - p))`, elementwise, in nats; 0 and 1 mean float32's last bit."""
    safe = np.clip(np.asarray(p, np.float64), P_EPSILON, 1 - P_EPSILON)
    t = np.asarray(target, np.float64)
    return np.asarray(-(t * np.log(safe) + (1 - t) * np.log1p(-safe)))


def weighted_mean(values: npt.ArrayLike, weight: Doubles) -> float:
    """The weighted mean, NaN where there is nothing."""
    return float(np.average(np.asarray(values, np.float64), weights=weight)) if len(weight) else float("nan")


def mean(values: npt.ArrayLike) -> float:
    """The mean over what is finite, NaN where nothing is."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    return float(finite.mean()) if len(finite) else float("nan")
