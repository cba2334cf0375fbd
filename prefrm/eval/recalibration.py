"""Fitting a calibration map to labels, and applying one to matrices that were scored without it.

Shapes: N comparisons, K candidates.
"""

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.eval.pairs import Doubles
from prefrm.eval.statistics import P_EPSILON
from prefrm.winmatrix import CalibrationMap, PowerScaling, TemperatureScaling, WinMatrix
from prefrm.winmatrix.probabilities import sigmoid

__all__ = ["apply_calibration", "calibrated", "fit_calibration", "order_probabilities"]

PRIOR_DEVIATIONS = np.array([1.0, 0.5])
"""Of log temperature and log power about 0, the judge as it is: standard deviations of a normal prior."""
PRICE_OF_A_PARAMETER = 1.0
"""In nats: Akaike's information criterion."""
MOST_STEPS = 100
LONGEST_STEP = 1.0
SMALLEST_STEP = 1e-9


def fit_calibration(
    p: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> CalibrationMap:
    """The map f under which sigmoid(f(logit(p))) fits `target` best by log loss; safe for small sets.

    `TemperatureScaling` and `PowerScaling` are fitted by maximum a posteriori: the summed log loss plus a
    normal prior on the logarithms of their parameters, centred at the judge as it is. `PowerScaling` is
    chosen where that lowers the sum by more than a nat, the price of one parameter by Akaike's criterion.

    The prior is the guard against small sets: its weight relative to the data falls with the number of pairs,
    so that no minimum size has to be chosen. At the optimum log(temperature) is at most n times the mean
    calibrated log-odds of n pairs. Five pairs that contradict a judge can therefore not flatten it: at a
    temperature of 50 they leave p at 0.69 or more, and since log-odds of float32 probabilities end at 17, it
    is not above 25. Without the prior they set every p to 0.5. Five pairs that agree with a judge do not make
    it certain either. For a thousand pairs the prior is about half a nat of several hundred. Cross-validation
    would need enough pairs for its folds first.

    Args:
        p: [N] P(i beats j) as judged; NaN entries are left out, 0 and 1 are float32's last bit.
        target: [N] the probability that i is preferred; 0.5 is a tie.
        weight: [N] weights, all 1 if None. N is the effective number, `sum(w)^2 / sum(w^2)` (Kish 1965).

    Raises:
        ConfigError: the lengths differ, or no pair was judged.
    """
    x, t, w = _folded(*_judged(p, target, weight))
    (log_temperature,), cost = _minimise(x, t, w, parameters=1)
    (log_other, log_power), other_cost = _minimise(x, t, w, parameters=2)
    if other_cost + PRICE_OF_A_PARAMETER < cost:
        return PowerScaling(temperature=float(np.exp(log_other)), power=float(np.exp(log_power)))
    return TemperatureScaling(temperature=float(np.exp(log_temperature)))


def apply_calibration(p: npt.ArrayLike, calibration: CalibrationMap) -> Doubles:
    """sigmoid(calibration(logit(p))), elementwise; NaN stays NaN and no verdict changes."""
    return sigmoid(calibration.apply(_logit(np.asarray(p, np.float64))))


def calibrated(matrix: WinMatrix, calibration: CalibrationMap) -> WinMatrix:
    """The matrix that the judge would have given with `calibration` applied to its log-odds.

    The log-odds of both presentation orders follow from p and the order gap, so this needs no scorer. Where
    the judge has a calibration of its own, `calibration` comes after it.

    Exact up to the precision of float32 probabilities.
    """
    mean = _logit(matrix.p.astype(np.float64))
    order_free = bool(np.isnan(matrix.order_gap[matrix.valid & ~np.eye(matrix.size, dtype=bool)]).any())
    gap = np.nan_to_num(matrix.order_gap.astype(np.float64))
    # Which order favours the first image is not kept, nor needed: p and the gap are the same for either.
    logits = mean + _half_difference(mean, gap)
    judged = WinMatrix.from_order_logits(
        np.where(matrix.valid, logits, np.nan),
        errors=matrix.errors,
        tie=matrix.tie,
        order_free=order_free,
        calibration=calibration,
    )
    return judged.with_inferred(np.where(matrix.inferred, mean, np.nan), calibration=calibration)


def order_probabilities(p: npt.ArrayLike, order_gap: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """P(i beats j) in each of the two presentation orders, the lower one first, elementwise.

    Which order favours i is not kept. A judge without presentation order, whose gap is NaN, says the same in
    both.
    """
    mean = _logit(np.asarray(p, np.float64))
    half = _half_difference(mean, np.nan_to_num(np.asarray(order_gap, np.float64)))
    return sigmoid(mean - half), sigmoid(mean + half)


def _judged(
    p: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[Doubles, Doubles, Doubles]:
    """Log-odds, targets and weights of the judged pairs; the weights sum to the effective number of pairs."""
    judged = np.asarray(p, np.float64)
    w = np.ones_like(judged) if weight is None else np.asarray(weight, np.float64)
    t = np.asarray(target, np.float64)
    if not judged.shape == t.shape == w.shape or judged.ndim != 1:
        raise ConfigError(
            f"p, target and weight need one length; received {judged.shape}, {t.shape} and {w.shape}"
        )
    keep = np.isfinite(judged)
    if not keep.any():
        raise ConfigError(f"a calibration needs judged pairs; none of the {len(judged)} received was judged")
    w = w[keep]
    return _logit(judged[keep]), t[keep], w * (w.sum() / np.sum(w**2))


def _folded(x: Doubles, t: Doubles, w: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The same from the side of the predicted winner: x > 0. Where x is 0 it stays 0 under any map."""
    decided = x != 0
    x, t, w = x[decided], t[decided], w[decided]
    return np.abs(x), np.where(x > 0, t, 1 - t), w


def _minimise(x: Doubles, t: Doubles, w: Doubles, *, parameters: int) -> tuple[Doubles, float]:
    """Fisher scoring with step halving over the first `parameters` of (log temperature, log power)."""
    deviations = PRIOR_DEVIATIONS[:parameters]
    q = np.zeros(parameters)
    cost, step = _cost(q, x, t, w), np.full(parameters, np.inf)
    for _ in range(MOST_STEPS):
        if np.abs(step).max() < SMALLEST_STEP:
            break
        f, slopes = _mapped(q, x)
        said = sigmoid(f)
        gradient = slopes.T @ (w * (said - t)) + q / deviations**2
        curvature = (slopes.T * (w * said * (1 - said))) @ slopes + np.diag(1 / deviations**2)
        step = np.clip(-np.linalg.solve(curvature, gradient), -LONGEST_STEP, LONGEST_STEP)
        while (lower := _cost(q + step, x, t, w)) > cost and np.abs(step).max() >= SMALLEST_STEP:
            step = step / 2
        if lower <= cost:
            q, cost = q + step, lower
    return q, cost


def _cost(q: Doubles, x: Doubles, t: Doubles, w: Doubles) -> float:
    """The negative log posterior, up to a constant: log loss summed over pairs, and the prior."""
    f, _ = _mapped(q, x)
    prior = np.sum((q / PRIOR_DEVIATIONS[: len(q)]) ** 2) / 2
    return float(np.sum(w * (np.logaddexp(0.0, f) - t * f)) + prior)


def _mapped(q: Doubles, x: Doubles) -> tuple[Doubles, Doubles]:
    """x > 0 under the map of log parameters q, [N], and the derivatives with respect to q, [N, len(q)]."""
    log_temperature, power = q[0], np.exp(q[1]) if len(q) > 1 else 1.0
    f = x**power * np.exp(-log_temperature)
    return f, np.stack([-f, power * np.log(x) * f][: len(q)], axis=1)


def _half_difference(mean: Doubles, gap: Doubles) -> Doubles:
    """d >= 0 with sigmoid(mean + d) - sigmoid(mean - d) = gap.

    The left side is sinh(d) / (cosh(mean) + cosh(d)), so e^d solves a quadratic equation.
    """
    g = np.minimum(gap, 1 - P_EPSILON)
    c = g * np.cosh(mean)
    return np.asarray(np.log((c + np.sqrt(c**2 + (1 - g) * (1 + g))) / (1 - g)))


def _logit(p: Doubles) -> Doubles:
    safe = np.clip(p, P_EPSILON, 1 - P_EPSILON)
    # 1 - p is exact for a float32 p, so this is exactly odd about 1/2; log1p would not be.
    return np.log(safe) - np.log(1 - safe)
