"""Length bias of a judge of texts: whether it prefers the longer answer because it is longer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prefrm.eval.accuracies import Accuracy, pair_accuracy
from prefrm.eval.pairs import JudgedGroup, pairs_of
from prefrm.eval.statistics import weighted_mean
from prefrm.records import Comparison

__all__ = ["LengthBias", "length_bias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBias:
    """What the length of texts has to do with verdicts, lengths counted in characters.

    Attributes:
        accuracy: `pair_accuracy` of the strict pairs whose preferred text is the "longer" one, the "shorter"
            one, or of "equal" length. A judge without a bias is as good on the first two.
        always_longer: what always preferring the longer text gets on strict pairs of different lengths.
        judge: mean P(the longer text is preferred) by the judge, over judged pairs of different lengths.
        labels: the same as the dataset says it.
    """

    accuracy: Mapping[str, Accuracy]
    always_longer: float
    judge: float
    labels: float


def length_bias(judged: Sequence[JudgedGroup]) -> LengthBias | None:
    """The length bias on the groups of texts; None if there is none."""
    texts = [group for group in judged if group.lengths]
    if not texts:
        return None
    names = {1: "longer", -1: "shorter", 0: "equal"}
    accuracy = {name: pair_accuracy(pairs_of(_preferring(texts, side))) for side, name in names.items()}
    # The longer one first.
    turned = [
        replace(group, comparisons=tuple(_longer_first(group, c) for c in group.comparisons))
        for group in _where(texts, lambda group, c: group.lengths[c.i] != group.lengths[c.j])
    ]
    pairs = pairs_of(turned).judged
    strict = pairs.strict
    return LengthBias(
        accuracy=accuracy,
        always_longer=weighted_mean(strict.target > 0.5, strict.weight),
        judge=weighted_mean(pairs.p, pairs.weight),
        labels=weighted_mean(pairs.target, pairs.weight),
    )


def _preferring(groups: Sequence[JudgedGroup], side: int) -> list[JudgedGroup]:
    return _where(groups, lambda group, c: _longer(group, c) == side)


def _longer(group: JudgedGroup, c: Comparison) -> int:
    """1 where the preferred text is the longer one, -1 where it is the shorter one, 0 if neither is."""
    gap = group.lengths[c.i] - group.lengths[c.j]
    return int(np.sign(gap if c.p > 0.5 else -gap))


def _longer_first(group: JudgedGroup, c: Comparison) -> Comparison:
    return c if group.lengths[c.i] > group.lengths[c.j] else c.swapped()


def _where(
    groups: Sequence[JudgedGroup], keep: Callable[[JudgedGroup, Comparison], bool]
) -> list[JudgedGroup]:
    return [
        replace(group, comparisons=tuple(c for c in group.comparisons if keep(group, c))) for group in groups
    ]
