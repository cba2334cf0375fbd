"""Agreement of a judge with a preference dataset, and what that is worth when it picks or rewards.

"Accuracy" has six incompatible meanings in the literature. Here it is ImageReward's: micro over
comparisons in which the dataset prefers one candidate (p != 0.5), and a judge that answers exactly
0.5 is wrong. A pair that was not judged is neither right nor wrong; it is counted as `unjudged`.
Every mean over comparisons is weighted by `Comparison.weight`. What has no data is NaN.

Says nothing about calibration; that is `prefrm.eval.calibration`.

Shapes: N comparisons, K candidates of a group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrm.eval.pairs import Doubles, JudgedGroup, Pairs, pairs_of

__all__ = [
    "Accuracy",
    "Metrics",
    "accuracy",
    "cross_entropy",
    "kendall_tau",
    "mean",
    "measure",
    "weighted_mean",
]

BOOTSTRAP_DRAWS = 1000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95
P_EPSILON = 2.0**-24
"""The largest float32 below 1 is 1 - 2^-24; a matrix that says 1 means no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A strict pair accuracy: its value, its 95% bootstrap interval over prompts, and what it counts.

    `pairs` is the number of strict pairs that were judged, `unjudged` of those that were not.
    """

    value: float
    low: float
    high: float
    pairs: int
    unjudged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a judge's matrices say of a preference dataset.

    Attributes:
        groups: number of groups.
        comparisons: number of comparisons, ties included.
        ties: how many of them are ties in the dataset.
        unjudged: how many of them the judge gave no answer to; no mean includes these.
        accuracy: over all strict pairs.
        by_tag: tag name -> tag value -> accuracy over the strict pairs of the groups that carry it.
        lower_index_accuracy: the accuracy of always preferring the candidate with the lower index; far
            from 0.5, the dataset's order gives its labels away.
        log_loss: mean cross-entropy of p against the (soft) target, in nats; ties included.
        mean_order_gap: mean absolute change of p under the other presentation order; NaN for a judge
            without presentation order.
        max_order_gap: the largest such change.
        swap_consistency: share of judged pairs with the same verdict in both presentation orders.
        kendall_tau: Kendall's tau-b between win rates and `quality`, mean over groups that have it.
        best_of_k_regret: `max(quality) - quality[candidate with the highest win rate]`, mean over groups,
            in the dataset's unit of quality.
        random_regret: the same for a candidate drawn at random.
        win_rate_spread: highest minus lowest win rate, mean over groups; 0 for a judge that tells
            nothing apart.
    """

    groups: int
    comparisons: int
    ties: int
    unjudged: int
    accuracy: Accuracy
    by_tag: Mapping[str, Mapping[str, Accuracy]]
    lower_index_accuracy: float
    log_loss: float
    mean_order_gap: float
    max_order_gap: float
    swap_consistency: float
    kendall_tau: float
    best_of_k_regret: float
    random_regret: float
    win_rate_spread: float


def measure(judged: Sequence[JudgedGroup], *, seed: int = BOOTSTRAP_SEED) -> Metrics:
    """Every metric of a dataset's judged groups; `seed` drives the bootstrap alone."""
    every = pairs_of(judged)
    answered, strict = every.judged, every.strict.judged
    gap = answered.order_gap[np.isfinite(answered.order_gap)]
    ranked = [ranking for group in judged if (ranking := _ranked(group)) is not None]
    lower_wins = (strict.target > 0.5) == strict.lower_first
    return Metrics(
        groups=len(judged),
        comparisons=len(every),
        ties=int(np.sum(every.target == 0.5)),
        unjudged=len(every) - len(answered),
        accuracy=accuracy(every, seed=seed),
        by_tag=_by_tag(judged, seed),
        lower_index_accuracy=weighted_mean(lower_wins, strict.weight),
        log_loss=weighted_mean(cross_entropy(answered.p, answered.target), answered.weight),
        mean_order_gap=mean(gap),
        max_order_gap=float(gap.max()) if len(gap) else float("nan"),
        swap_consistency=_swap_consistency(answered),
        kendall_tau=mean([kendall_tau(rate, quality) for rate, quality in ranked]),
        best_of_k_regret=mean([quality.max() - quality[rate.argmax()] for rate, quality in ranked]),
        random_regret=mean([quality.max() - quality.mean() for _, quality in ranked]),
        win_rate_spread=mean([np.ptp(rate) for group in judged if len(rate := _win_rates(group))]),
    )


def accuracy(pairs: Pairs, *, seed: int = BOOTSTRAP_SEED) -> Accuracy:
    """Strict pair accuracy of `pairs`, with a bootstrap interval that draws prompts with replacement.

    Pairs of one prompt are not independent, so whole prompts are drawn (a cluster bootstrap,
    percentile interval). Equal pairs and seed give an equal interval.
    """
    strict = pairs.strict
    scored = strict.judged
    right = np.sign(scored.p - 0.5) == np.sign(scored.target - 0.5)
    low, high = _bootstrap(right, scored, seed)
    return Accuracy(
        value=weighted_mean(right, scored.weight),
        low=low,
        high=high,
        pairs=len(scored),
        unjudged=len(strict) - len(scored),
    )


def kendall_tau(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Kendall's tau-b of two length-K sequences; NaN where either is constant.

    M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    sign_a, sign_b = (np.sign(np.subtract.outer(x, x)) for x in (np.asarray(a), np.asarray(b)))
    norm = np.sqrt(np.sum(sign_a**2) * np.sum(sign_b**2))
    return float(np.sum(sign_a * sign_b) / norm) if norm else float("nan")


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


def _by_tag(judged: Sequence[JudgedGroup], seed: int) -> dict[str, dict[str, Accuracy]]:
    tagged: dict[str, dict[str, list[JudgedGroup]]] = {}
    for group in judged:
        for name, value in group.tags.items():
            tagged.setdefault(name, {}).setdefault(value, []).append(group)
    return {
        name: {value: accuracy(pairs_of(groups), seed=seed) for value, groups in sorted(values.items())}
        for name, values in sorted(tagged.items())
    }


def _bootstrap(right: npt.NDArray[np.bool_], pairs: Pairs, seed: int) -> tuple[float, float]:
    if not len(pairs):
        return float("nan"), float("nan")
    _, prompt = np.unique(pairs.prompt, return_inverse=True)
    won = np.bincount(prompt, weights=right * pairs.weight)
    total = np.bincount(prompt, weights=pairs.weight)
    # One prompt drawn n times out of n: multinomial counts, so no draw is ever materialised.
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(total), np.full(len(total), 1 / len(total)), size=BOOTSTRAP_DRAWS)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile((counts @ won) / (counts @ total), [tail, 1 - tail])
    return float(low), float(high)


def _swap_consistency(pairs: Pairs) -> float:
    """Share of pairs whose two presentation orders agree, which p and the order gap determine.

    The two orders' log-odds are m + d and m - d, where m = logit(p) and the order gap is
    sigmoid(m + d) - sigmoid(m - d), increasing in d >= 0. They agree where d < |m|, that is where the
    gap is below its value at d = |m|, sigmoid(2|m|) - 1/2 with sigmoid(2m) = p^2 / (p^2 + (1 - p)^2).
    An order that answers exactly 0.5 agrees with nothing.
    """
    ordered = pairs.where(np.isfinite(pairs.order_gap))
    square = ordered.p**2
    edge = np.abs(square / (square + (1 - ordered.p) ** 2) - 0.5)
    return weighted_mean(ordered.order_gap < edge, ordered.weight)


def _win_rates(group: JudgedGroup) -> Doubles:
    rate = group.matrix.win_rate(on_missing="drop").astype(np.float64)
    return rate[np.isfinite(rate)]


def _ranked(group: JudgedGroup) -> tuple[Doubles, Doubles] | None:
    """Win rate and quality of the judged candidates, or None where there are not two of them."""
    if group.quality is None:
        return None
    rate = group.matrix.win_rate(on_missing="drop").astype(np.float64)
    quality = np.array(group.quality, dtype=np.float64)
    keep = np.isfinite(rate) & np.isfinite(quality)
    return (rate[keep], quality[keep]) if keep.sum() >= 2 else None
