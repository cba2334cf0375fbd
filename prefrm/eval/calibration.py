"""Whether a judge's probabilities mean what they say, and the one number that makes them.

A pair has two probabilities, p and 1 - p, and which of them is written down depends on how the
candidates happen to be numbered. Here each pair is folded to its predicted winner and counted once:
its confidence is max(p, 1 - p), in [0.5, 1], and it is right to the degree that the dataset agrees
with the predicted winner: 1 or 0 for a strict pair, 0.5 for a tie, the target itself where it is
soft. At p = 0.5 exactly no winner is predicted, and it is right by 0.5. Renumbering the candidates
therefore changes nothing.

Shapes: N comparisons, K candidates.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.eval.pairs import Doubles, Pairs
from prefrm.eval.statistics import P_EPSILON, weighted_mean
from prefrm.winmatrix import WinMatrix, temper_ties

__all__ = ["Calibration", "Reliability", "apply_temperature", "calibrate", "fit_temperature", "tempered"]

logger = logging.getLogger(__name__)

BINS = 10
EDGE = 1e-6
TEMPERATURE_RANGE = (0.02, 50.0)


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
class Calibration:
    """Calibration of the judged pairs.

    Attributes:
        ece: expected calibration error, `sum over bins of share * |agreement - confidence|`
            (Naeini et al. 2015; Guo et al., arXiv 1706.04599), over 10 bins of equal width on [0.5, 1]; over
            all pairs, where a tie of the dataset agrees by 0.5 with either winner.
        ece_strict: the same over the strict pairs alone; a temperature that was fitted to ties as well leaves
            a judge less sure than right here.
        brier: mean squared difference of p and the target (Brier 1950), in [0, 1]; over all pairs.
        table: the bins of `ece`, lowest confidence first.
    """

    ece: float
    ece_strict: float
    brier: float
    table: tuple[Reliability, ...]


def calibrate(pairs: Pairs, *, bins: int = BINS) -> Calibration:
    """The calibration of `pairs`; those that were not judged do not count."""
    pairs = pairs.judged
    table = _table(pairs, bins)
    return Calibration(
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


def fit_temperature(p: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """The temperature T > 0 at which sigmoid(logit(p) / T) has the least cross-entropy against `target`.

    Use held-out data, not what the judge was trained on. One number cannot change a verdict, only its
    confidence (temperature scaling, Guo et al., arXiv 1706.04599).

    Args:
        p: [N] P(i beats j) as judged; NaN entries are left out, 0 and 1 mean float32's last bit.
        target: [N] the probability that i is preferred.
        weight: [N] weights, all 1 if None.

    On data that the judge separates perfectly the cross-entropy has no minimum. As in Platt scaling
    (Platt 1999), targets are therefore drawn towards 1/2 by 1/(n + 2), n the effective number of
    pairs; for large n this changes nothing. T stays in [0.02, 50], and is 1 where no pair decides it.
    A warning is logged where the best T would lie beyond that range: at 50 the judge contradicts the
    labels, and no temperature makes its probabilities mean anything.

    Raises:
        ConfigError: the lengths differ, or no pair was judged.
    """
    judged = np.asarray(p, np.float64)
    w = np.ones_like(judged) if weight is None else np.asarray(weight, np.float64)
    t = np.asarray(target, np.float64)
    if not judged.shape == t.shape == w.shape or judged.ndim != 1:
        raise ConfigError(
            f"p, target and weight need one length; received {judged.shape}, {t.shape} and {w.shape}"
        )
    keep = np.isfinite(judged)
    if not keep.any():
        raise ConfigError(f"a temperature needs judged pairs; none of the {len(judged)} received was judged")
    x, t, w = _logit(judged[keep]), t[keep], w[keep]
    effective = w.sum() ** 2 / np.sum(w**2)
    t = t + (0.5 - t) * 2 / (effective + 2)
    temperature = _minimise(x, t, w / w.sum()) if np.any(x) else 1.0
    low, high = TEMPERATURE_RANGE
    if not low * (1 + EDGE) < temperature < high * (1 - EDGE):
        logger.warning(
            "the fitted temperature, %.3g, is at the end of its range: %s",
            temperature,
            "the judge contradicts these labels" if temperature > 1 else "its log-odds are close to zero",
        )
    return temperature


def apply_temperature(p: npt.ArrayLike, temperature: float) -> Doubles:
    """sigmoid(logit(p) / temperature), elementwise; NaN stays NaN and no verdict changes."""
    _check_temperature(temperature)
    return _sigmoid(_logit(np.asarray(p, np.float64)) / temperature)


def tempered(matrix: WinMatrix, temperature: float) -> WinMatrix:
    """The matrix that the judge would have given with its log-odds divided by `temperature`.

    The log-odds of both presentation orders follow from p and the order gap, so this needs no
    scorer; P(tie) follows as `prefrm.winmatrix.temper_ties` says. The log-odds of inferred pairs are divided
    as well: the same as inferring them again from those that the judge gave, if utilities explain these.

    Exact up to the precision of float32 probabilities: log-odds beyond about 16 are all the same
    p = 1, so a judge so certain comes out less certain than its own log-odds, divided, would be.
    """
    _check_temperature(temperature)
    mean = _logit(matrix.p.astype(np.float64))
    order_free = bool(np.isnan(matrix.order_gap[matrix.valid & ~np.eye(matrix.size, dtype=bool)]).any())
    gap = np.nan_to_num(matrix.order_gap.astype(np.float64))
    # Which order favours the first image is not kept, nor needed: p and the gap are the same for either.
    logits = (mean + _half_difference(mean, gap)) / temperature
    judged = WinMatrix.from_order_logits(
        np.where(matrix.valid, logits, np.nan),
        errors=matrix.errors,
        tie=temper_ties(matrix.tie, mean, temperature),
        order_free=order_free,
    )
    return judged.with_inferred(np.where(matrix.inferred, mean / temperature, np.nan))


def _half_difference(mean: Doubles, gap: Doubles) -> Doubles:
    """d >= 0 with sigmoid(mean + d) - sigmoid(mean - d) = gap.

    The left side is sinh(d) / (cosh(mean) + cosh(d)), so e^d solves a quadratic equation.
    """
    g = np.minimum(gap, 1 - P_EPSILON)
    c = g * np.cosh(mean)
    return np.asarray(np.log((c + np.sqrt(c**2 + (1 - g) * (1 + g))) / (1 - g)))


def _minimise(x: Doubles, t: Doubles, w: Doubles) -> float:
    """Bisection on log T: the cross-entropy is convex in 1/T, so its slope changes sign once."""
    low, high = np.log(TEMPERATURE_RANGE)
    for _ in range(60):
        middle = (low + high) / 2
        slope = np.sum(w * x * (_sigmoid(x / np.exp(middle)) - t))
        # The slope is with respect to 1/T: where it is positive, a larger T is better.
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"a temperature is positive and finite; received {temperature}")


def _logit(p: Doubles) -> Doubles:
    safe = np.clip(p, P_EPSILON, 1 - P_EPSILON)
    # 1 - p is exact for a float32 p, so this is exactly odd about 1/2; log1p would not be.
    return np.log(safe) - np.log(1 - safe)


def _sigmoid(x: Doubles) -> Doubles:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))
