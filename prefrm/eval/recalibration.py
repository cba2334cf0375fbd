"""Fitting a calibration map to labels, and applying one to probabilities. Shapes: N comparisons."""

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.winmatrix import CalibrationMap, Doubles, PowerScaling, TemperatureScaling
from prefrm.winmatrix.probabilities import half_difference, logit, sigmoid

__all__ = ["apply_calibration", "fit_calibration", "order_probabilities"]

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
    return sigmoid(calibration.apply(logit(np.asarray(p, np.float64))))


def order_probabilities(p: npt.ArrayLike, order_gap: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """P(i beats j) in each of the two presentation orders, the lower one first, elementwise.

    Which order favours i is not kept. A judge without presentation order, whose gap is NaN, says the same in
    both.
    """
    mean = logit(np.asarray(p, np.float64))
    half = half_difference(mean, np.nan_to_num(np.asarray(order_gap, np.float64)))
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
    return logit(judged[keep]), t[keep], w * (w.sum() / np.sum(w**2))


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
