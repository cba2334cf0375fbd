"""What "accuracy" means: the literature's incompatible definitions, each under a name of its own.

A definition turns p into a verdict (i wins, j wins, tie), gives each verdict a credit in [0, 1] against
the label, and says over which pairs, and how, the mean is taken. Everything is weighted by
`Comparison.weight`; a soft target counts as the side that it leans to. A pair that was not judged is
neither right nor wrong; it is counted as `unjudged`.

| name | pairs | a tie of the judge | mean |
|---|---|---|---|
| `pair_accuracy` | strict | is wrong | over pairs |
| `prompt_accuracy` | strict | is wrong | over prompts |
| `half_tie_accuracy` | all | below a tuned threshold; half right if only one side ties | over pairs |
| `tie_calibrated_accuracy` | all | below a fitted threshold; right if both tie | over pairs |
| `three_label_accuracy` | all | its most probable outcome; right if both tie | over pairs |

Shapes: N comparisons.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.statistics import share_interval, weighted_mean
from prefrm.eval.thresholds import Thresholds, half_tie_credit, label, same_credit, verdict
from prefrm.rewards import criterion_name
from prefrm.winmatrix import Doubles

__all__ = [
    "Accuracy",
    "Breakdown",
    "accuracies",
    "half_tie_accuracy",
    "pair_accuracy",
    "prompt_accuracy",
    "three_label_accuracy",
    "tie_calibrated_accuracy",
]

Credit = Callable[[Doubles, Doubles], Doubles]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One accuracy, what it counts, and what a judge that looks at nothing would get.

    Attributes:
        value: in [0, 1].
        low: lower end of its 95% interval, in which pairs of one prompt may depend on each other.
        high: upper end.
        pairs: number of pairs that count and were judged.
        prompts: number of prompts that these are of.
        unjudged: number of pairs that would count and were not.
        always_first: what always preferring the candidate with the lower index gets on the same pairs;
            far from `chance`, the dataset's order gives its labels away.
        chance: what a fair coin between the two gets on average.
        always_tie: what always answering "tie" gets.
    """

    value: float
    low: float
    high: float
    pairs: int
    prompts: int
    unjudged: int
    always_first: float
    chance: float
    always_tie: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """One definition over all groups, and tag name -> tag value -> over the groups that carry it.

    `criterion` and `kind` are tags of groups where a dataset has several.
    """

    overall: Accuracy
    by_tag: Mapping[str, Mapping[str, Accuracy]]


def pair_accuracy(pairs: Pairs) -> Accuracy:
    """The share of strict pairs with the label's verdict; a judge that says exactly 0.5 is wrong.

    Micro over pairs, as ImageReward reports it (arXiv 2304.05977).
    """
    strict = pairs.strict
    return _accuracy(strict, verdict(strict.p), same_credit)


def prompt_accuracy(pairs: Pairs) -> Accuracy:
    """`pair_accuracy` of each prompt's strict pairs, then the mean over prompts.

    As HPSv2 reports it on ImageReward's and its own test set (arXiv 2306.09341): a prompt with many
    pairs counts as much as one with few.
    """
    strict = pairs.strict
    return _accuracy(strict, verdict(strict.p), same_credit, over_prompts=True)


def half_tie_accuracy(pairs: Pairs, threshold: float) -> Accuracy:
    """1 for the label's verdict, 1/2 where either side says tie and the other does not, else 0.

    PickScore's (arXiv 2305.01569, its `eval_preference_predictor.py`); the judge says tie where
    `|p - (1 - p)| <= threshold`, and `fit_half_tie_threshold` tunes that on validation.
    """
    return _accuracy(pairs, verdict(pairs.p, threshold), half_tie_credit)


def tie_calibrated_accuracy(pairs: Pairs, threshold: float) -> Accuracy:
    """The share of pairs, ties included, on which verdict and label are the same of win, lose, tie.

    Deutsch et al., "Ties Matter" (arXiv 2305.14324): pairwise accuracy with ties, after tie
    calibration. `fit_tie_threshold` finds the threshold, never on the pairs that are measured.
    """
    return _accuracy(pairs, verdict(pairs.p, threshold), same_credit)


def three_label_accuracy(pairs: Pairs) -> Accuracy:
    """Exact match over win, lose and tie of the judge's own most probable outcome; no threshold.

    GenAI-Bench (arXiv 2406.04485) matches four labels: left, right, tie, both bad. A comparison says
    which candidate is preferred and not whether either is any good, so its two kinds of tie are one
    here, and this number is no four-label one wherever "both bad" occurs. A judge that gives no P(tie)
    says tie only at exactly 0.5.
    """
    even = np.nan_to_num(pairs.tie) / 2
    ties = pairs.tie >= np.maximum(pairs.p - even, 1 - pairs.p - even)
    return _accuracy(pairs, np.where(ties, 0.0, verdict(pairs.p)), same_credit)


def accuracies(judged: Sequence[JudgedGroup], thresholds: Thresholds | None) -> dict[str, Breakdown]:
    """Every definition by its name; without `thresholds`, the two that need one are left out."""
    definitions: dict[str, Callable[[Pairs], Accuracy]] = {
        "pair_accuracy": lambda pairs: pair_accuracy(pairs),
        "prompt_accuracy": lambda pairs: prompt_accuracy(pairs),
    }
    if thresholds is not None:
        half, calibrated = thresholds.half_tie, thresholds.tie_calibrated
        definitions["half_tie_accuracy"] = lambda pairs: half_tie_accuracy(pairs, half)
        definitions["tie_calibrated_accuracy"] = lambda pairs: tie_calibrated_accuracy(pairs, calibrated)
    definitions["three_label_accuracy"] = lambda pairs: three_label_accuracy(pairs)
    every, tagged = pairs_of(judged), _tagged(judged)
    return {
        name: Breakdown(
            overall=define(every),
            by_tag={
                tag: {value: define(pairs) for value, pairs in values.items()}
                for tag, values in tagged.items()
            },
        )
        for name, define in definitions.items()
    }


def _accuracy(pairs: Pairs, verdicts: Doubles, credit: Credit, *, over_prompts: bool = False) -> Accuracy:
    judged = np.isfinite(pairs.p)
    scored, labels = pairs.where(judged), label(pairs.target[judged])
    weight = _equal_prompts(scored) if over_prompts else scored.weight

    def value(said: npt.ArrayLike) -> float:
        return weighted_mean(credit(np.broadcast_to(said, labels.shape), labels), weight)

    low, high = share_interval(credit(verdicts[judged], labels), weight, scored.prompt)
    return Accuracy(
        value=value(verdicts[judged]),
        low=low,
        high=high,
        pairs=len(scored),
        prompts=len(np.unique(scored.prompt)),
        unjudged=len(pairs) - len(scored),
        always_first=value(np.where(scored.lower_first, 1.0, -1.0)),
        chance=(value(1.0) + value(-1.0)) / 2,
        always_tie=value(0.0),
    )


def _equal_prompts(pairs: Pairs) -> Doubles:
    """Weights by which each prompt counts as much as any other; inside a prompt they are as they were."""
    _, place = np.unique(pairs.prompt, return_inverse=True)
    return np.asarray(pairs.weight / np.bincount(place, pairs.weight)[place])


def _tagged(judged: Sequence[JudgedGroup]) -> dict[str, dict[str, Pairs]]:
    """The pairs by tag and value: by the groups' own tags, and by criterion and kind if there are several."""
    tagged: dict[str, dict[str, list[JudgedGroup]]] = {}
    of_group: dict[str, Callable[[JudgedGroup], str]] = {
        "criterion": lambda group: criterion_name(group.criterion),
        "kind": lambda group: group.kind,
    }
    told = {name: value for name, value in of_group.items() if len(set(map(value, judged))) > 1}
    for group in judged:
        for name, value in ({name: tell(group) for name, tell in told.items()} | dict(group.tags)).items():
            tagged.setdefault(name, {}).setdefault(value, []).append(group)
    return {
        name: {value: pairs_of(groups) for value, groups in sorted(values.items())}
        for name, values in sorted(tagged.items())
    }
