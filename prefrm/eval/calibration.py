"""Calibration metrics: how far a judge's probabilities agree with the labels.

A pair has two probabilities, p and 1 - p, and which of them is written down depends on how the
candidates happen to be numbered. Here each pair is folded to its predicted winner and counted once:
its confidence is max(p, 1 - p), in [0.5, 1], and it is right to the degree that the dataset agrees
with the predicted winner: 1 or 0 for a strict pair, 0.5 for a tie, the target itself where it is
soft. At p = 0.5 exactly no winner is predicted, and it is right by 0.5. Renumbering the candidates
therefore changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefrm.eval.pairs import Pairs
from prefrm.eval.statistics import weighted_mean

__all__ = ["CalibrationMetrics", "Reliability", "measure_calibration"]

BINS = 10
EDGE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """One bin of the reliability table: confidences in [low, high), the last bin closed.

    `confidence` and `agreement` are weighted means over the bin's `pairs`, NaN where it has none;
    `share` is the bin's part of the total weight.
    """

    low: float
    high: float
    pairs: int
    share: float
    confidence: float
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationMetrics:
    """Calibration of the judged pairs.

    Attributes:
        ece: expected calibration error, `sum over bins of share * |agreement - confidence|`
            (Naeini et al. 2015; Guo et al., arXiv 1706.04599), over 10 bins of equal width on [0.5, 1]; over
            all pairs, where a tie of the dataset agrees by 0.5 with either winner.
        ece_strict: the same over the strict pairs alone; a calibration that was fitted to ties as well leaves
            a judge less certain than right here.
        brier: mean squared difference of p and the target (Brier 1950), in [0, 1]; over all pairs.
        table: the bins of `ece`, lowest confidence first.
    """

    ece: float
    ece_strict: float
    brier: float
    table: tuple[Reliability, ...]


def measure_calibration(pairs: Pairs, *, bins: int = BINS) -> CalibrationMetrics:
    """The metrics of `pairs`; those that were not judged do not count."""
    pairs = pairs.judged
    table = _table(pairs, bins)
    return CalibrationMetrics(
        ece=_error(table),
        ece_strict=_error(_table(pairs.strict, bins)),
        brier=weighted_mean((pairs.p - pairs.target) ** 2, pairs.weight),
        table=table,
    )


def _table(pairs: Pairs, bins: int) -> tuple[Reliability, ...]:
    sign = np.sign(pairs.p - 0.5)
    confidence = 0.5 + np.abs(pairs.p - 0.5)
    agreement = 0.5 + sign * (pairs.target - 0.5)
    # The float32 of 0.7 is a little less than 0.7, and yet belongs to the bin that starts there.
    place = np.minimum(((confidence - 0.5) * 2 * bins + EDGE).astype(np.int64), bins - 1)
    total = pairs.weight.sum()
    return tuple(
        Reliability(
            low=0.5 + b / (2 * bins),
            high=0.5 + (b + 1) / (2 * bins),
            pairs=int(inside.sum()),
            share=float(pairs.weight[inside].sum() / total) if total else 0.0,
            confidence=weighted_mean(confidence[inside], pairs.weight[inside]),
            agreement=weighted_mean(agreement[inside], pairs.weight[inside]),
        )
        for b, inside in ((b, place == b) for b in range(bins))
    )


def _error(table: Sequence[Reliability]) -> float:
    gaps = [row.share * abs(row.agreement - row.confidence) for row in table if row.pairs]
    return float(sum(gaps)) if gaps else float("nan")
