"""Weighted means and their 95% intervals, which every part of an evaluation shares.

Pairs of one prompt are not independent, so an interval is that of independent pairs of which fewer, the
effective sample size, would say as much. It stays honest for few pairs and where all of them are alike:

- a share: the exact binomial interval (Clopper and Pearson 1934) at the effective sample size, as Korn and
  Graubard have it ("Confidence intervals for proportions with small expected number of positive counts
  estimated from survey data", Survey Methodology 24, 1998);
- a difference of two judges on the same pairs: a Wald interval with two pseudo-observations added, which for
  accuracies is Bonett and Price's ("Adjusted Wald confidence interval for a difference of binomial
  proportions based on paired data", Journal of Educational and Behavioral Statistics 37, 2012).

What has no data is NaN.

Shapes: N comparisons, Q prompts, P pseudo-observations.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.errors import missing_extra
from prefrm.winmatrix import Doubles
from prefrm.winmatrix.probabilities import P_EPSILON

__all__ = [
    "cross_entropy",
    "difference_interval",
    "mean",
    "share_interval",
    "student_quantile",
    "weighted_mean",
]

CONFIDENCE = 0.95
PSEUDO_PAIRS = 2


def share_interval(
    values: npt.ArrayLike, weight: Doubles, prompt: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """The 95% interval of the weighted mean of `values`, [N] in [0, 1]."""
    v = np.asarray(values, np.float64)
    if not len(v):
        return float("nan"), float("nan")
    special = _scipy_special()
    share = min(max(weighted_mean(v, weight), 0.0), 1.0)
    size = _effective_size(v, weight, prompt, share * (1 - share))
    tail = (1 - CONFIDENCE) / 2
    right, wrong = size * share, size * (1 - share)
    low = special.betaincinv(right, wrong + 1, tail) if np.any(v) else 0.0
    high = special.betaincinv(right + 1, wrong, 1 - tail) if np.any(v < 1) else 1.0
    return float(low), float(high)


def difference_interval(
    values: npt.ArrayLike, weight: Doubles, prompt: npt.NDArray[np.int64], pseudo: npt.ArrayLike
) -> tuple[float, float]:
    """The 95% interval of the weighted mean of differences `values` [N].

    `pseudo` [P] are values that a further pair may have, whatever was seen. Together they count as two pairs,
    without which differences that happen to be alike would look certain.
    """
    v, extra = np.asarray(values, np.float64), np.asarray(pseudo, np.float64)
    if not len(v):
        return float("nan"), float("nan")
    observed = weighted_mean(v, weight)
    size = _effective_size(v, weight, prompt, weighted_mean((v - observed) ** 2, weight))
    share = size / (size + PSEUDO_PAIRS)
    centre = share * observed + (1 - share) * extra.mean()
    variance = share * weighted_mean((v - centre) ** 2, weight) + (1 - share) * np.mean((extra - centre) ** 2)
    half = _scipy_special().ndtri((1 + CONFIDENCE) / 2) * np.sqrt(variance / (size + PSEUDO_PAIRS))
    return float(centre - half), float(centre + half)


def _effective_size(
    values: Doubles, weight: Doubles, prompt: npt.NDArray[np.int64], variance: float
) -> float:
    """How many independent pairs would say as much about the mean; `variance` is what one of them has.

    At most as many as there are pairs, at least as many as there are prompts (both of equal weight: Kish's
    effective sample size), since pairs of a prompt tell at worst the same. In between, by the variance of the
    mean over prompts, itself uncertain with few of them: hence the quantiles of Student's t. Where that
    variance cannot be known, for one prompt or values that are all alike, as many as there are prompts.
    """
    _, place = np.unique(prompt, return_inverse=True)
    share = weight / weight.sum()
    of_prompts = np.bincount(place, share)
    pairs, prompts = 1 / np.sum(share**2), 1 / np.sum(of_prompts**2)
    count = len(of_prompts)
    if count < 2 or np.ptp(values) == 0:
        return float(prompts)
    residual = np.bincount(place, share * (values - share @ values))
    between = count / (count - 1) * np.sum(residual**2)
    # Compared as products: by chance all prompts may have the same mean.
    size = pairs if between * (pairs - 1) <= variance else variance / between * pairs / (pairs - 1)
    quantiles = student_quantile(pairs - 1), student_quantile(count - 1)
    return float(max(size * min(quantiles[0] / quantiles[1], 1.0) ** 2, prompts))


def student_quantile(freedom: float) -> float:
    """Half the width of a 95% interval in standard errors that have so many degrees of freedom; NaN for 0."""
    return float(_scipy_special().stdtrit(freedom, (1 + CONFIDENCE) / 2))


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


def _scipy_special() -> Any:
    try:
        from scipy import special
    except ImportError as error:
        raise missing_extra("scipy", "data") from error
    return special
