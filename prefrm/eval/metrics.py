"""Agreement of a judge with a preference dataset, and what that is worth when it picks or rewards.

"Accuracy" has six incompatible meanings in the literature; `prefrm.eval.accuracies` has each of them,
and where one number must stand for all it is `pair_accuracy`. Every mean over comparisons is weighted
by `Comparison.weight`. What has no data is NaN.

Says nothing about calibration; that is `prefrm.eval.calibration`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prefrm.eval.accuracies import Accuracy, Breakdown, accuracies
from prefrm.eval.illusory import IllusoryAdvantage, illusory_advantages
from prefrm.eval.lengths import LengthBias, length_bias
from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.published import published_accuracies
from prefrm.eval.ranking import (
    best_of_k_regret,
    intransitive_triples,
    judged_quality,
    kendall_tau,
    spearman_rho,
    win_rates,
)
from prefrm.eval.statistics import cross_entropy, mean, weighted_mean
from prefrm.eval.thresholds import Thresholds
from prefrm.winmatrix import Doubles

__all__ = ["Metrics", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a judge's matrices say of a preference dataset.

    Attributes:
        groups: number of groups.
        comparisons: number of comparisons, ties included.
        ties: how many of them are ties in the dataset.
        unjudged: how many of them the judge gave no answer to; no mean includes these.
        accuracy: `pair_accuracy` over all groups.
        by_tag: tag name -> tag value -> `pair_accuracy` over the groups that carry it.
        accuracies: every definition by its name, `pair_accuracy` among them.
        published: the accuracies of `prefrm.eval.published` by their names.
        lower_index_accuracy: the accuracy of always preferring the candidate with the lower index; far
            from 0.5, the dataset's order gives its labels away.
        log_loss: mean cross-entropy of p against the (soft) target, in nats; ties included.
        mean_order_gap: mean absolute change of p under the other presentation order; NaN for a judge
            without presentation order.
        max_order_gap: the largest such change.
        mean_label_mass: of a generative judge, mean probability of all answers that it may give, together,
            over all pairs of candidates in which it was read, judged or not; NaN of other judges.
        swap_consistency: share of judged pairs with the same verdict in both presentation orders.
        triples: number of triples of candidates whose three pairs were judged, labelled or not.
        intransitive_share: the share of them whose verdicts no ranking explains.
        kendall_tau: Kendall's tau-b between win rates and `quality`, mean over groups in which it differs;
            0 for a group whose win rates are all the same.
        spearman_rho: Spearman's rho of the same.
        best_of_k_regret: `max(quality) - quality[candidate with the highest win rate]`, mean over groups,
            in the dataset's unit of quality; of candidates that share the highest win rate, their mean.
        random_regret: the same for a candidate drawn at random.
        win_rate_spread: highest minus lowest win rate, mean over groups; 0 for a judge that tells
            nothing apart.
        illusory_advantage: by reward, what equally good candidates are given; empty without `quality`.
        length_bias: of texts; None where there are none.
    """

    groups: int
    comparisons: int
    ties: int
    unjudged: int
    accuracy: Accuracy
    by_tag: Mapping[str, Mapping[str, Accuracy]]
    accuracies: Mapping[str, Breakdown]
    published: Mapping[str, Accuracy]
    lower_index_accuracy: float
    log_loss: float
    mean_order_gap: float
    max_order_gap: float
    mean_label_mass: float
    swap_consistency: float
    triples: int
    intransitive_share: float
    kendall_tau: float
    spearman_rho: float
    best_of_k_regret: float
    random_regret: float
    win_rate_spread: float
    illusory_advantage: Mapping[str, IllusoryAdvantage]
    length_bias: LengthBias | None = None


def measure(judged: Sequence[JudgedGroup], thresholds: Thresholds | None = None) -> Metrics:
    """Every metric of a dataset's judged groups.

    Without `thresholds`, which belong to another split, the accuracies that need one are left out.
    """
    every = pairs_of(judged)
    answered = every.judged
    ordered = answered.ordered
    ranked = [ranking for group in judged if (ranking := judged_quality(group)) is not None]
    named = accuracies(judged, thresholds)
    strict = named["pair_accuracy"]
    cycles, triples = intransitive_triples([group.matrix for group in judged])
    return Metrics(
        groups=len(judged),
        comparisons=len(every),
        ties=int(np.sum(every.target == 0.5)),
        unjudged=len(every) - len(answered),
        accuracy=strict.overall,
        by_tag=strict.by_tag,
        accuracies=named,
        published=published_accuracies(judged, thresholds),
        lower_index_accuracy=strict.overall.always_first,
        log_loss=weighted_mean(cross_entropy(answered.p, answered.target), answered.weight),
        mean_order_gap=weighted_mean(ordered.order_gap, ordered.weight),
        max_order_gap=float(ordered.order_gap.max()) if len(ordered) else float("nan"),
        mean_label_mass=mean(_label_masses(judged)),
        swap_consistency=_swap_consistency(ordered),
        triples=triples,
        intransitive_share=cycles / triples if triples else float("nan"),
        kendall_tau=mean([_agreement(kendall_tau, *ranking) for ranking in ranked]),
        spearman_rho=mean([_agreement(spearman_rho, *ranking) for ranking in ranked]),
        best_of_k_regret=mean([best_of_k_regret(rate, quality) for rate, quality in ranked]),
        random_regret=mean([quality.max() - quality.mean() for _, quality in ranked]),
        win_rate_spread=mean([np.ptp(rate) for group in judged if len(rate := win_rates(group))]),
        illusory_advantage=illusory_advantages(judged),
        length_bias=length_bias(judged),
    )


def _label_masses(judged: Sequence[JudgedGroup]) -> list[float]:
    """Of each pair of candidates in which it was read."""
    matrices = [group.matrix for group in judged]
    masses = [x.label_mass[np.triu_indices(x.size, 1)] for x in matrices if x.label_mass is not None]
    found = np.concatenate(masses) if masses else np.empty(0)
    return [float(mass) for mass in found[np.isfinite(found)]]


def _agreement(correlation: Callable[[Doubles, Doubles], float], rate: Doubles, quality: Doubles) -> float:
    """The correlation; 0 for a judge that tells nothing apart where there is something to tell apart."""
    return 0.0 if np.ptp(rate) == 0 < np.ptp(quality) else correlation(rate, quality)


def _swap_consistency(pairs: Pairs) -> float:
    """Share of pairs whose two presentation orders agree, which p and the order gap determine.

    The two orders' log-odds are m + d and m - d, where m = logit(p) and the order gap is
    sigmoid(m + d) - sigmoid(m - d), increasing in d >= 0. They agree where d < |m|, that is where the
    gap is below its value at d = |m|, sigmoid(2|m|) - 1/2 with sigmoid(2m) = p^2 / (p^2 + (1 - p)^2).
    An order that answers exactly 0.5 agrees with nothing.
    """
    square = pairs.p**2
    edge = np.abs(square / (square + (1 - pairs.p) ** 2) - 0.5)
    return weighted_mean(pairs.order_gap < edge, pairs.weight)
