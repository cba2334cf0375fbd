"""When a judge that never says tie has said it: tie thresholds, and how they are fitted.

A threshold t is on the margin `|p - (1 - p)|`, in [0, 1]: at or below it the verdict is a tie. It is
fitted on one split and used on another; on the split that is measured it would flatter the judge.

Shapes: N comparisons.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.eval.pairs import Pairs
from prefrm.winmatrix import CalibrationMap, Doubles

__all__ = [
    "Thresholds",
    "fit_half_tie_threshold",
    "fit_tie_threshold",
    "half_tie_credit",
    "label",
    "same_credit",
    "verdict",
]

HALF_TIE_GRID = np.linspace(0.0, 1.0, 11)
"""The thresholds that PickScore's own evaluation tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The tie thresholds of one judge.

    Attributes:
        split: where they were fitted.
        pairs: how many judged pairs that were.
        half_tie: for `half_tie_accuracy`.
        tie_calibrated: for `tie_calibrated_accuracy`.
    """

    split: str
    pairs: int
    half_tie: float
    tie_calibrated: float

    @classmethod
    def fit(cls, pairs: Pairs, split: str) -> "Thresholds":
        """Fit both on the judged ones of `pairs`. Raises `ConfigError` if there are none."""
        return cls(
            split=split,
            pairs=len(pairs.judged),
            half_tie=fit_half_tie_threshold(pairs),
            tie_calibrated=fit_tie_threshold(pairs),
        )

    def calibrated(self, calibration: CalibrationMap) -> "Thresholds":
        """The thresholds that leave every verdict as it is once log-odds are calibrated."""
        return replace(
            self,
            half_tie=_calibrated(self.half_tie, calibration),
            tie_calibrated=_calibrated(self.tie_calibrated, calibration),
        )


def verdict(p: npt.ArrayLike, threshold: float = 0.0) -> Doubles:
    """1 where i wins, -1 where j does, 0 where the margin is at most `threshold`; NaN stays NaN."""
    lead = 2 * np.asarray(p, np.float64) - 1
    return np.where(np.abs(lead) <= threshold, 0.0, np.sign(lead))


def label(target: npt.ArrayLike) -> Doubles:
    """1 where the dataset prefers i, -1 where it prefers j, 0 where they tie."""
    return np.asarray(np.sign(np.asarray(target, np.float64) - 0.5))


def same_credit(verdicts: Doubles, labels: Doubles) -> Doubles:
    """1 where the verdict is the label, else 0."""
    return np.asarray(verdicts == labels, np.float64)


def half_tie_credit(verdicts: Doubles, labels: Doubles) -> Doubles:
    """1 where the verdict is the label, 1/2 where one of them is a tie, 0 where they are opposite."""
    return np.asarray(1 - np.abs(verdicts - labels) / 2)


def fit_half_tie_threshold(pairs: Pairs) -> float:
    """PickScore's tuning (arXiv 2305.01569): the best of 0, 0.1, ..., 1; of equally good ones the smallest.

    Raises `ConfigError` if no pair was judged.
    """
    pairs = _judged(pairs)
    labels = label(pairs.target)
    scores = [pairs.weight @ half_tie_credit(verdict(pairs.p, t), labels) for t in HALF_TIE_GRID]
    return float(HALF_TIE_GRID[np.argmax(scores)])


def fit_tie_threshold(pairs: Pairs) -> float:
    """Tie calibration (Deutsch et al., arXiv 2305.14324): the threshold with the most same verdicts.

    Every margin that occurs is tried, and 0. Of equally good ones it is the smallest, moved half way to
    the next margin, which changes no verdict here. Raises `ConfigError` if no pair was judged.
    """
    pairs = _judged(pairs)
    margin = np.abs(2 * pairs.p - 1)
    order = np.argsort(margin)
    labels, right = label(pairs.target)[order], same_credit(verdict(pairs.p), label(pairs.target))[order]
    # What calling the k smallest margins ties gains (ties of the dataset) and loses (right verdicts), net.
    gain = pairs.weight[order] * ((labels == 0).astype(np.float64) - right)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    tried = np.unique(np.concatenate([[0.0], margin]))
    best = int(np.argmax(total[np.searchsorted(margin[order], tried, side="right")]))
    if best == 0 or best == len(tried) - 1:
        return float(tried[best])
    return float((tried[best] + tried[best + 1]) / 2)


def _judged(pairs: Pairs) -> Pairs:
    if not len(pairs.judged):
        raise ConfigError(f"a tie threshold needs judged pairs; none of the {len(pairs)} received was judged")
    return pairs.judged


def _calibrated(threshold: float, calibration: CalibrationMap) -> float:
    # A margin m is tanh(z / 2) of the log-odds z.
    if threshold >= 1:
        return 1.0
    return math.tanh(float(calibration.apply(np.array(2 * math.atanh(threshold)))) / 2)
