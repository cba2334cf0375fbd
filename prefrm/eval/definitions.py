"""A published accuracy as a row of settings: the layout of groups as pairs, the mean, ties by threshold.

Knows no published number; those are in `prefrm.eval.published`.

Shapes: N comparisons.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from prefrm.errors import ConfigError
from prefrm.eval.accuracies import Accuracy, half_tie_accuracy, pair_accuracy, prompt_accuracy
from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.recalibration import order_probabilities
from prefrm.eval.thresholds import Thresholds
from prefrm.records import DatasetInfo
from prefrm.winmatrix import Doubles

__all__ = ["Definition", "both_orders", "by_ranking", "groups_apart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One published accuracy.

    Attributes:
        recipe: whose dataset it is published on.
        split: the published test split, as people name it.
        summary: the definition in a line.
        source: where the definition and the numbers stand.
        judges: judge -> its published accuracy, in [0, 1].
        layout: from judged groups to pairs, the judge's verdicts in `p`.
        mean: over "pairs" (each comparison once), "votes" (by weight) or "groups".
        tuned: whether all pairs count, with the half tie threshold that a validation split has tuned.
        options: of the recipe, with which its test split is the published one.
    """

    recipe: str
    split: str
    summary: str
    source: str
    judges: Mapping[str, float]
    layout: Callable[[Sequence[JudgedGroup]], Pairs]
    mean: Literal["pairs", "votes", "groups"] = "pairs"
    tuned: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def is_of(self, info: DatasetInfo) -> bool:
        """Whether the dataset is the published one, by its recipe and options."""
        same = (info.options.get(name) == value for name, value in self.options.items())
        return info.recipe == self.recipe and all(same)

    def accuracy(self, judged: Sequence[JudgedGroup], thresholds: Thresholds | None = None) -> Accuracy:
        """The accuracy. Raises `ConfigError` if it needs `thresholds` and there are none."""
        pairs = self.layout(judged)
        if self.mean != "votes":
            pairs = replace(pairs, weight=np.ones(len(pairs)))
        if self.tuned:
            return half_tie_accuracy(pairs, _half_tie(thresholds))
        return prompt_accuracy(pairs) if self.mean == "groups" else pair_accuracy(pairs)


def groups_apart(judged: Iterable[JudgedGroup]) -> Pairs:
    """The pairs of the groups, of which two with the same prompt count as two prompts."""
    return pairs_of(replace(group, prompt=str(index)) for index, group in enumerate(judged))


def by_ranking(judged: Iterable[JudgedGroup]) -> Pairs:
    """As `groups_apart`, with the verdicts of each group's ranking by win rate: p is 1 or 0.

    Equal win rates are broken by index, which is the order of the candidates' digests. The win rates of a
    pointwise judge order candidates as its scores do. A candidate without a win rate has no place.
    """
    groups = list(judged)
    pairs = groups_apart(groups)
    return replace(pairs, p=np.concatenate([np.zeros(0), *map(_ranked, groups)]))


def both_orders(judged: Iterable[JudgedGroup]) -> Pairs:
    """Each pair twice, 2N rows: with p as the judge answers in one presentation order and in the other.

    A judge without presentation order says the same in both.
    """
    pairs = pairs_of(judged)
    low, high = order_probabilities(pairs.p, pairs.order_gap)
    twice = {name: np.tile(getattr(pairs, name), 2) for name in Pairs.__slots__}
    return Pairs(**(twice | {"p": np.concatenate([low, high])}))


def _ranked(group: JudgedGroup) -> Doubles:
    rate = group.matrix.win_rate(on_missing="drop").astype(np.float64)
    place = np.full(len(rate), np.nan)
    known = np.flatnonzero(np.isfinite(rate))
    place[known[np.argsort(-rate[known], kind="stable")]] = np.arange(len(known))
    i, j = np.array([(c.i, c.j) for c in group.comparisons], np.int64).reshape(-1, 2).T
    ahead = place[j] - place[i]
    return np.where(np.isfinite(ahead), (ahead > 0).astype(np.float64), np.nan)


def _half_tie(thresholds: Thresholds | None) -> float:
    if thresholds is None:
        raise ConfigError("this definition needs a tie threshold; fit thresholds on a validation split")
    return thresholds.half_tie
