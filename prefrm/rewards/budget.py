"""Which pairs to judge when there is no time for all of them, and what the judged ones say of the others.

Comparisons are chosen in rounds, because each round costs a pass through the model. The first connects all
candidates. Each later one asks where the Bradley-Terry estimate is least certain: the pair with the largest
`p (1 - p) Var(u_i - u_j)` (`prefrm.rewards.design`). The variance is updated after each choice, so that a
round does not ask the same thing twice.

Pairs that were not judged are inferred from utilities that were fitted to those that were. Utilities put
candidates on a line: a judge that prefers them in circles (arXiv 2410.02197) says so in the pairs that it
judged, and no inferred pair does.

Knows no judge, no images and no torch. Shapes: K candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt, log

import numpy as np
import numpy.typing as npt

from prefrm.rewards.design import PRIOR_PRECISION, covariance_after, difference_variances
from prefrm.rewards.utilities import fit_utilities, reachable
from prefrm.winmatrix import Bools, Doubles
from prefrm.winmatrix.probabilities import sigmoid

__all__ = ["BudgetedPairs", "Judgement", "choose_and_fit"]

Pair = tuple[int, int]
"""Two candidates i < j by their numbers."""
Judgement = Callable[[Sequence[Pair]], Sequence[float]]
"""Pairs to the log-odds that i beats j, both presentation orders merged; NaN where it cannot be judged."""

# What the last fit needs to exist however certain the judge is, and hardly sees.
WEAK_PRIOR_PRECISION = 1e-6
# Relative to the largest one: above what rounding leaves of 0, below that of a chain of thousands.
ZERO_EIGENVALUE = 1e-10
# Beyond these, p and 1 - p are 1 and 0 in float32.
CERTAIN_LOG_ODDS = 24 * log(2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BudgetedPairs:
    """What became of a group's pairs; the log-odds are float64 [K, K], skew-symmetric, in nats.

    Attributes:
        judged: log-odds of the pairs that were judged; NaN elsewhere and on the diagonal.
        inferred: log-odds of pairs that were not, whether asked for or not, where a chain of judged pairs
            connects the two; NaN elsewhere. 0 on the diagonal of a candidate that was judged with any other:
            its tie with itself, and with a copy of itself.
        asked: number of pairs that the judge was asked for, those that it could not judge included.
        rounds: how often it was asked.
    """

    judged: Doubles
    inferred: Doubles
    asked: int
    rounds: int


def choose_and_fit(size: int, budget: int, judge: Judgement) -> BudgetedPairs:
    """Have at most `budget` of the pairs of `size` candidates judged, and infer the others.

    No pair is asked twice, one that cannot be judged counts as asked, and candidates that it leaves apart
    are brought together over others before anything else is asked. With a budget of at least all
    K (K - 1) / 2 pairs every pair is asked, at once, and nothing is inferred: it is as if there were no
    budget. Deterministic; candidates matter by number alone.

    Args:
        size: K, the number of candidates.
        budget: number of unordered pairs, at least K - 1.
        judge: is given each round's pairs: K in the first one, in which each candidate meets two others at
            least, and K / 2 in each later one.
    """
    assert budget >= size - 1, "candidates that no chain of pairs connects cannot be compared"
    everything = size * (size - 1) // 2
    complete = budget >= everything
    state = _Knowledge(size)
    state.learn(_circulant(size, everything if complete else min(budget, size)), judge)
    while remaining := min(budget, everything) - state.asked:
        state.learn(state.choose(min(remaining, max(1, size // 2))), judge)
    inferred = state.inferred()
    if complete:
        inferred[~np.eye(size, dtype=bool)] = np.nan
    return BudgetedPairs(judged=state.log_odds, inferred=inferred, asked=state.asked, rounds=state.rounds)


class _Knowledge:
    """What was asked and answered so far, and what to ask next."""

    def __init__(self, size: int) -> None:
        self.log_odds: Doubles = np.full((size, size), np.nan)
        self.open: Bools = np.asarray(~np.eye(size, dtype=bool))
        self.asked = self.rounds = 0

    def learn(self, pairs: Sequence[Pair], judge: Judgement) -> None:
        if not pairs:
            return
        for (i, j), answer in zip(pairs, judge(pairs), strict=True):
            self.open[i, j] = self.open[j, i] = False
            if np.isfinite(answer):
                self.log_odds[i, j], self.log_odds[j, i] = answer, -answer
        self.asked += len(pairs)
        self.rounds += 1

    def choose(self, count: int) -> list[Pair]:
        """The next round: pairs that connect what is apart, then those that tell most."""
        u = self._fit(PRIOR_PRECISION)
        p_KK = sigmoid(u[:, None] - u[None, :])
        weight_KK = p_KK * p_KK.T
        covariance = _covariance(np.where(self.judged, weight_KK, 0.0))
        answerable_KK = self._answerable()
        promise_KK = weight_KK * answerable_KK
        parts, free, chosen = _parts(self.judged), self.open.copy(), list[Pair]()
        bridges = np.zeros(len(u))
        for _ in range(count):
            apart = free & (parts[:, None] != parts[None, :])
            # float32: what differs by rounding alone is a tie, which the lower numbers win.
            gain = (promise_KK * difference_variances(covariance)).astype(np.float32)
            i, j = divmod(int(np.where(apart if apart.any() else free, gain, -1).argmax()), len(u))
            chosen.append((min(i, j), max(i, j)))
            free[i, j] = free[j, i] = False
            # Apart until one judged pair is to be expected: where many failed, several are tried at once.
            one, other = parts == parts[i], parts == parts[j]
            bridges[one | other] += answerable_KK[i, j]
            if min(bridges[i], bridges[j]) >= 1:
                parts[other] = parts[i]
            covariance = covariance_after(covariance, i, j, float(weight_KK[i, j]))
        return chosen

    def inferred(self) -> Doubles:
        # A prior about the least squares of the log-odds takes nothing from utilities that explain them.
        u = self._fit(WEAK_PRIOR_PRECISION, _least_squares(self.log_odds))
        parts, met = _parts(self.judged), np.asarray(self.judged.any(axis=1))
        connected = (parts[:, None] == parts[None, :]) & met[:, None] & ~self.judged
        return np.where(connected, u[:, None] - u[None, :], np.nan)

    @property
    def judged(self) -> Bools:
        return np.asarray(np.isfinite(self.log_odds))

    def _fit(self, precision: float, centre: Doubles | float = 0.0) -> Doubles:
        p_KK = sigmoid(np.where(self.judged, self.log_odds, 0.0))
        return fit_utilities(p_KK, self.judged, precision, centre)

    def _answerable(self) -> Doubles:
        """[K, K] in (0, 1]: how well each pair's two candidates could be judged so far; 1 if always."""
        tried = (~self.open).sum(axis=1) - 1
        share = (self.judged.sum(axis=1) + 1) / (tried + 1)
        return np.asarray(np.outer(share, share))


def _circulant(size: int, count: int) -> list[Pair]:
    """`count` pairs of numbers at fixed distances round a circle, the first K - 1 of them a chain.

    The second distance is about sqrt(K), so that few steps lead from anyone to anyone else.
    """
    half = range(1, size // 2 + 1)
    distances = sorted(half, key=lambda step: (step > 1, abs(step - isqrt(size)), step))
    circle = ((n, (n + step) % size) for step in distances for n in range(size))
    pairs = dict.fromkeys((min(pair), max(pair)) for pair in circle)
    return list(pairs)[:count]


def _parts(edges_KK: Bools) -> npt.NDArray[np.intp]:
    """[K]; two candidates have the same number exactly if a chain of edges connects them."""
    return np.asarray(reachable(edges_KK).argmax(axis=1)) if len(edges_KK) else np.zeros(0, np.intp)


def _least_squares(log_odds_KK: Doubles) -> Doubles:
    """Utilities whose differences are closest to the log-odds that are there, mean 0 in each part."""
    judged = np.isfinite(log_odds_KK)
    laplacian = np.diag(judged.sum(axis=1)) - judged
    sums = np.where(judged, np.clip(log_odds_KK, -CERTAIN_LOG_ODDS, CERTAIN_LOG_ODDS), 0.0).sum(axis=1)
    inverse = np.linalg.pinv(laplacian.astype(np.float64), rcond=ZERO_EIGENVALUE, hermitian=True)
    return np.asarray(inverse @ sums)


def _covariance(weight_KK: Doubles) -> Doubles:
    """Of the utilities: the inverse of the regularised Hessian of the Bradley-Terry likelihood."""
    hessian = np.diag(weight_KK.sum(axis=1) + PRIOR_PRECISION) - weight_KK
    return np.asarray(np.linalg.inv(hessian), dtype=np.float64)
