"""Two judges on the same groups: how far apart they are, and whether that is more than luck.

Paired: only pairs that both judged count, each with the difference between the two judges on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prefrm.errors import DatasetError
from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.statistics import cross_entropy, difference_interval, weighted_mean
from prefrm.eval.thresholds import label, verdict
from prefrm.winmatrix import Doubles

__all__ = ["Difference", "SideBySide", "compare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first judge's number minus the second's, on the same pairs.

    Attributes:
        value: the difference.
        low: lower end of its 95% interval.
        high: upper end.
        pairs: number of pairs that count.
        prompts: number of prompts that these are of.
    """

    value: float
    low: float
    high: float
    pairs: int
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """The first judge against the second.

    Attributes:
        pairs: pairs that both judged, the dataset's ties included.
        strict_pairs: how many of them are strict.
        left_out: pairs that only one of them judged, or neither.
        pair_accuracy: difference in `pair_accuracy`, over the strict pairs; positive if the first is better.
        log_loss: difference in log loss, over the pairs, in nats; negative if the first is better.
        differ: pairs on which the two verdicts differ (i wins, j wins, exactly 0.5).
        first_alone: strict pairs on which the first is right and the second is not.
        second_alone: the other way round.
    """

    pairs: int
    strict_pairs: int
    left_out: int
    pair_accuracy: Difference
    log_loss: Difference
    differ: int
    first_alone: int
    second_alone: int


def compare(first: Sequence[JudgedGroup], second: Sequence[JudgedGroup]) -> SideBySide:
    """Compare two judges of the same groups.

    Raises:
        DatasetError: the groups are not the same, in the same order.
    """
    for one, other in zip(first, second, strict=False):
        if (one.id, one.comparisons) != (other.id, other.comparisons):
            raise DatasetError(f"the two judges saw different groups: {one.id!r} and {other.id!r}")
    if len(first) != len(second):
        raise DatasetError(f"the two judges saw different groups: {len(first)} and {len(second)} of them")
    every, opposite = pairs_of(first), pairs_of(second)
    both = np.isfinite(every.p) & np.isfinite(opposite.p)
    a, b = every.where(both), opposite.where(both)
    strict = a.target != 0.5
    right_a, right_b = (verdict(pairs.p[strict]) == label(pairs.target[strict]) for pairs in (a, b))
    return SideBySide(
        pairs=len(a),
        strict_pairs=int(strict.sum()),
        left_out=len(every) - len(a),
        pair_accuracy=_accuracy_difference(right_a, right_b, a.where(strict)),
        log_loss=_log_loss_difference(a, b),
        differ=int(np.sum(verdict(a.p) != verdict(b.p))),
        first_alone=int(np.sum(right_a & ~right_b)),
        second_alone=int(np.sum(right_b & ~right_a)),
    )


def _accuracy_difference(
    right: npt.NDArray[np.bool_], opposite: npt.NDArray[np.bool_], pairs: Pairs
) -> Difference:
    # A further pair may be one on which either judge alone is right.
    difference = _difference(right.astype(np.float64) - opposite, pairs, np.array([1.0, -1.0]))
    return replace(difference, low=max(difference.low, -1.0), high=min(difference.high, 1.0))


def _log_loss_difference(a: Pairs, b: Pairs) -> Difference:
    def differences(target: Doubles) -> Doubles:
        return cross_entropy(a.p, target) - cross_entropy(b.p, target)

    # A further pair may be any of these, with its label or with the opposite one.
    seen = differences(a.target)
    return _difference(seen, a, np.concatenate([seen, differences(1 - a.target)]))


def _difference(values: Doubles, pairs: Pairs, pseudo: Doubles) -> Difference:
    low, high = difference_interval(values, pairs.weight, pairs.prompt, pseudo)
    return Difference(
        value=weighted_mean(values, pairs.weight),
        low=low,
        high=high,
        pairs=len(pairs),
        prompts=len(np.unique(pairs.prompt)),
    )
