"""From log-odds to probabilities: the logistic function, exact complements, and what a tie may be."""

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGEST_LOG_ODDS",
    "P_EPSILON",
    "Doubles",
    "calibrate_ties",
    "half_difference",
    "logit",
    "shown_log_odds",
    "sigmoid",
    "win_probabilities",
]

Doubles = npt.NDArray[np.float64]

SMALLEST = np.finfo(np.float64).tiny
P_EPSILON = 2.0**-24
"""Float32 holds no larger probability below 1 than 1 - 2^-24."""
LARGEST_LOG_ODDS = float(np.log(2.0**24 - 1))
"""Of 1 - 2^-24, the largest float32 below 1: a probability of 1 means no more than this."""


def sigmoid(x: npt.ArrayLike) -> Doubles:
    """The logistic function of numbers of any shape; nothing overflows."""
    x = np.asarray(x, dtype=np.float64)
    # exp of a non-positive number only.
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def logit(p: Doubles) -> Doubles:
    """The log-odds of probabilities; 0 and 1 count as float32's last bit."""
    safe = np.clip(p, P_EPSILON, 1 - P_EPSILON)
    # 1 - p is exact for a float32 p, so this is exactly odd about 1/2; log1p would not be.
    return np.asarray(np.log(safe) - np.log(1 - safe))


def half_difference(mean: Doubles, gap: Doubles) -> Doubles:
    """d >= 0 with sigmoid(mean + d) - sigmoid(mean - d) = gap.

    The left side is sinh(d) / (cosh(mean) + cosh(d)), so e^d solves a quadratic equation.
    """
    g = np.minimum(gap, 1 - P_EPSILON)
    c = g * np.cosh(mean)
    return np.asarray(np.log((c + np.sqrt(c**2 + (1 - g) * (1 + g))) / (1 - g)))


def win_probabilities(log_odds: Doubles) -> npt.NDArray[np.float32]:
    """sigmoid of finite, skew-symmetric log-odds [K, K] as float32 p with p + p.T exactly 1.

    The larger side of each pair is computed and the smaller one is its complement, which float32 holds
    exactly.
    """
    high = sigmoid(np.abs(log_odds)).astype(np.float32)
    return np.where(log_odds >= 0, high, np.float32(1) - high)


def shown_log_odds(merged: Doubles, apart: Doubles) -> tuple[Doubles, Doubles]:
    """The log-odds that float32 probabilities show, which is all that a calibration is fitted to.

    Args:
        merged: m of two orders with the log-odds m + d and m - d.
        apart: d. It shrinks with m, so that the orders agree (|d| < |m|) as before.
    """
    share = LARGEST_LOG_ODDS / np.maximum(np.abs(merged), LARGEST_LOG_ODDS)
    return merged * share, np.clip(apart * share, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


def calibrate_ties(
    tie: npt.NDArray[np.floating],
    log_odds: Doubles,
    calibrated: Doubles,
) -> Doubles:
    """P(tie) after a calibration that was fitted on who wins.

    A tie counts half to each, so P(tie) is at most twice the smaller of p and 1 - p. It keeps its share of
    that bound; what exceeds the bound, because two orders were averaged, is cut.

    Args:
        tie: P(tie) of each pair, symmetric; NaN stays NaN.
        log_odds: of p before the calibration, both presentation orders merged: skew-symmetric.
        calibrated: the same after it; equal to `log_odds` if there is none, which only cuts.
    """
    before, after = (2 * sigmoid(-np.abs(x)) for x in (log_odds, calibrated))
    return np.asarray(np.minimum(tie, before) * (after / np.maximum(before, SMALLEST)))
