"""One reward for each candidate of a win matrix: win rate, Copeland score, Bradley-Terry utility.

All of them are higher for better candidates, give NaN to a candidate without a known opponent, and take
`on_missing`: "raise" refuses a matrix with a pair that is neither judged nor inferred, "drop" uses the other
pairs only. A pair that was inferred counts like one that was judged, except in the Bradley-Terry fit.

Shapes: K candidates, J of them judged.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError, IncompleteMatrixError
from prefrm.winmatrix import Bools, Doubles, Floats, OnMissing, WinMatrix
from prefrm.winmatrix.probabilities import sigmoid

__all__ = [
    "REWARDS",
    "RewardFunction",
    "bradley_terry",
    "copeland",
    "fit_utilities",
    "hard_win_rate",
    "pref_grpo_rewards",
    "reachable",
    "win_rate",
]


# The smallest probability that a float32 complement (1 - p, for p near 1) tells from 0.
CERTAIN = 2.0**-24
# Below this a prior cannot hold a separated utility within what float64 resolves.
WEAKEST_PRIOR = 1e-6
UTILITY_TOLERANCE = 1e-9
MAX_NEWTON_STEPS = 1000
# A standard deviation of 32 nats: utilities exist however certain the judge is, and others hardly shrink.
NAMED_PRIOR_PRECISION = 0.001


class RewardFunction(Protocol):
    """Turns a matrix of K candidates into float32 [K], NaN for a candidate without a known opponent."""

    def __call__(self, matrix: WinMatrix, /, *, on_missing: OnMissing = "raise") -> Floats: ...


def win_rate(matrix: WinMatrix, *, on_missing: OnMissing = "raise") -> Floats:
    """The mean probability of beating a known opponent, float32 [K] in [0, 1]; see `WinMatrix.win_rate`."""
    return matrix.win_rate(on_missing=on_missing)


def hard_win_rate(matrix: WinMatrix, *, on_missing: OnMissing = "raise") -> Floats:
    """The share of known opponents beaten (p > 0.5), an exact tie counting half: float32 [K] in [0, 1]."""
    return matrix.win_rate(hard=True, on_missing=on_missing)


def pref_grpo_rewards(matrix: WinMatrix) -> Doubles:
    """The hard win rate rounded to 3 places: the reward of Pref-GRPO (arXiv 2508.20751). Float64 [K].

    Pref-GRPO asks each pair once, lower index first. A matrix that holds those verdicts gives its rewards to
    the last digit; a matrix of prefrm's own scorers merges both orders. Pref-GRPO counts an unreadable answer
    as half a win for each side, which would invent a tie; here it raises. A single candidate has no opponent
    and gets NaN.

    Raises:
        IncompleteMatrixError: a pair was neither judged nor inferred.
    """
    matrix.require_complete()
    if matrix.size == 1:
        return np.array([np.nan])
    wins = (np.sign(matrix.p - np.float32(0.5)) + 1).sum(axis=1, dtype=np.float64) / 2 - 0.5
    # Python's round, as the reference uses; numpy's scales by 1000 first and differs on some ties.
    return np.array([round(float(w) / (matrix.size - 1), 3) for w in wins])


def copeland(matrix: WinMatrix, *, on_missing: OnMissing = "raise") -> Floats:
    """Opponents beaten minus opponents lost to, over the known ones: float32 [K] in [-(K - 1), K - 1]."""
    matrix.require_complete(on_missing)
    score = np.where(matrix.known, np.sign(matrix.p - np.float32(0.5)), 0).sum(axis=1)
    return np.where(matrix.judged, score, np.nan).astype(np.float32)


def bradley_terry(
    matrix: WinMatrix, *, prior_precision: float = 0.0, on_missing: OnMissing = "raise"
) -> Floats:
    """Maximum-likelihood utilities u with `P(i beats j) = sigmoid(u_i - u_j)`: float32 [K], mean 0, in nats.

    Every judged pair counts once, with its soft p as the target: the u that minimise the cross-entropy
    `-sum_ij p_ij ln sigmoid(u_i - u_j)`, by Newton's method (Bradley and Terry, 1952). An inferred p adds
    nothing to the pairs that it was inferred from, and counts only where these do not connect as many
    candidates, because the matrix is a part of that in which it was inferred: then all known pairs count.

    Args:
        prior_precision: 0, or the precision (1 / variance, at least 1e-6) of a Gaussian prior of mean 0 on
            each utility. With a prior the utilities always exist; candidates that no chain of comparisons
            connects are then comparable through the prior alone, each connected part having mean 0.

    Raises:
        IncompleteMatrixError: a pair is neither judged nor inferred and `on_missing` is "raise"; or,
            without a prior, the known pairs leave the candidates in parts that were never compared with
            each other.
        ConfigError: without a prior, some candidates beat all the others with certainty, so that no finite
            utilities fit best (Ford, 1957); or `prior_precision` is out of range.
    """
    if prior_precision != 0 and not WEAKEST_PRIOR <= prior_precision < float("inf"):
        raise ConfigError(
            f"prior_precision must be 0 or at least {WEAKEST_PRIOR}; received {prior_precision}"
        )
    matrix.require_complete(on_missing)
    judged = np.flatnonzero(matrix.judged)
    inner = np.ix_(judged, judged)
    pairs = _pairs_to_fit(matrix)[inner]
    p = np.where(pairs, matrix.p[inner], 0).astype(np.float64)
    if prior_precision == 0 and len(judged):
        _require_finite(p, pairs, judged)
    utilities = np.full(matrix.size, np.nan)
    utilities[judged] = fit_utilities(p, pairs, prior_precision)
    return utilities.astype(np.float32)


def fit_utilities(
    p_JJ: Doubles, weight_JJ: Doubles | Bools, precision: float, centre: Doubles | float = 0.0
) -> Doubles:
    """The fit behind `bradley_terry`: float64 [J], mean 0, in nats.

    Args:
        p_JJ: P(i beats j), skew-symmetric about 1/2 where it counts.
        weight_JJ: symmetric, 0 on the diagonal: how much each pair counts; of truth values, which pairs do.
        precision: that of the prior; 0 only where finite utilities exist.
        centre: the prior's mean, [J] or one for all.
    """

    def slope_at(u: Doubles) -> Doubles:
        return np.asarray(
            np.where(weight_JJ > 0, weight_JJ * (p_JJ - _win(u)), 0).sum(axis=1) - precision * (u - centre)
        )

    size = len(p_JJ)
    u = np.zeros(size)
    for _ in range(MAX_NEWTON_STEPS):
        slope = slope_at(u)
        curvature = _win(u) * _win(-u) * weight_JJ
        hessian = np.diag(curvature.sum(axis=1) + precision) - curvature
        # The likelihood does not see a common shift; the added rank-one term fixes it at mean 0.
        step = np.linalg.solve(hessian + hessian.max(initial=0.0) / max(size, 1), slope)
        # Halve a step that passes the maximum far enough to come out as steep on the other side.
        while slope_at(u + step) @ step < -0.9 * (slope @ step):
            step /= 2
        u = u + step
        if np.abs(step).max(initial=0.0) < UTILITY_TOLERANCE:
            return u - u.mean() if size else u
    raise AssertionError("Newton's method did not converge on a strictly concave likelihood")


REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {
        "win_rate": win_rate,
        "hard_win_rate": hard_win_rate,
        "copeland": copeland,
        "bradley_terry": partial(bradley_terry, prior_precision=NAMED_PRIOR_PRECISION),
    }
)
"""Rewards by name, for configurations. `bradley_terry` has a weak prior (precision 0.001) here, since a run
must not end at the first pair of which the judge is certain; the function itself has none."""


def _pairs_to_fit(matrix: WinMatrix) -> Bools:
    others = ~np.eye(matrix.size, dtype=bool)
    valid, known = matrix.valid & others, matrix.known & others
    return valid if np.array_equal(reachable(valid), reachable(known)) else known


def _win(u: Doubles) -> Doubles:
    return sigmoid(u[:, None] - u[None, :])


def _require_finite(p_JJ: Doubles, pairs_JJ: Bools, names: npt.NDArray[np.intp]) -> None:
    connected = reachable(pairs_JJ)[0]
    if not connected.all():
        raise IncompleteMatrixError(
            f"candidates {names[connected].tolist()} and {names[~connected].tolist()} were not compared, "
            "even indirectly, so their utilities have no common scale; pass prior_precision=0.1 for instance"
        )
    # Finite utilities exist exactly if every candidate beats every other along some chain (Ford, 1957).
    reach = reachable(pairs_JJ & (p_JJ >= CERTAIN))
    if not reach.all():
        below = reach[np.argmin(reach.sum(axis=1))]
        raise ConfigError(
            f"candidates {names[~below].tolist()} beat candidates {names[below].tolist()} with certainty, "
            "so no finite Bradley-Terry utilities exist; pass prior_precision=0.1 for instance"
        )


def reachable(edges_JJ: Bools) -> Bools:
    """Bool [J, J]: whether a path of edges leads from one to another; everyone reaches itself."""
    reach = edges_JJ | np.eye(len(edges_JJ), dtype=bool)
    for _ in range(len(edges_JJ).bit_length()):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0
    return np.asarray(reach)
