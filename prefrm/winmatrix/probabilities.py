"""From log-odds to probabilities: the logistic function, exact complements, and what a tie may be."""

import numpy as np
import numpy.typing as npt

__all__ = ["sigmoid", "temper_ties", "win_probabilities"]


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logistic function; nothing overflows."""
    # exp of a non-positive number only.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def win_probabilities(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """sigmoid of finite, skew-symmetric log-odds [K, K] as float32 p with p + p.T exactly 1.

    The larger side of each pair is computed and the smaller one is its complement, which float32 holds
    exactly.
    """
    high = sigmoid(np.abs(log_odds)).astype(np.float32)
    return np.where(log_odds >= 0, high, np.float32(1) - high)


def temper_ties(
    tie: npt.NDArray[np.floating], log_odds: npt.NDArray[np.floating], temperature: float
) -> npt.NDArray[np.float64]:
    """P(tie) where log-odds are divided by a temperature, which was fitted on who wins.

    A tie counts half to each, so P(tie) is at most twice the smaller of p and 1 - p. It keeps the share of
    that bound which it has; what is beyond the bound, because two orders were averaged, is cut.

    Args:
        tie: P(tie) of each pair, symmetric; NaN stays NaN.
        log_odds: of p, both presentation orders merged: skew-symmetric.
        temperature: > 0; 1 only cuts.
    """
    distance = np.abs(np.asarray(log_odds, dtype=np.float64))
    share = np.minimum(np.asarray(tie, dtype=np.float64) / (2 * sigmoid(-distance)), 1.0)
    return np.asarray(share * 2 * sigmoid(-distance / temperature))
