"""Two judges on the same groups: how far apart they are, and whether that is more than luck.

Paired: only pairs that both judged count, and the bootstrap draws the same prompts for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefrm.errors import DatasetError
from prefrm.eval.pairs import Doubles, JudgedGroup, Pairs, pairs_of
from prefrm.eval.statistics import SEED, by_prompt, cross_entropy, interval, ratio
from prefrm.eval.thresholds import label, verdict

__all__ = ["Difference", "SideBySide", "compare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first judge's number minus the second's, with its 95% paired bootstrap interval over prompts."""

    value: float
    low: float
    high: float


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


def compare(first: Sequence[JudgedGroup], second: Sequence[JudgedGroup], *, seed: int = SEED) -> SideBySide:
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
        pair_accuracy=_difference(right_a.astype(np.float64) - right_b, a.where(strict), seed),
        log_loss=_difference(cross_entropy(a.p, a.target) - cross_entropy(b.p, b.target), a, seed),
        differ=int(np.sum(verdict(a.p) != verdict(b.p))),
        first_alone=int(np.sum(right_a & ~right_b)),
        second_alone=int(np.sum(right_b & ~right_a)),
    )


def _difference(values: Doubles, pairs: Pairs, seed: int) -> Difference:
    sums = by_prompt(values, pairs.weight, pairs.prompt)
    low, high = interval(*sums, seed=seed)
    return Difference(value=ratio(*sums), low=low, high=high)
