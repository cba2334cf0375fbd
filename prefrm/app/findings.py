"""What is worth a look in a judged dataset: disagreement with its labels, order gaps, cycles, criteria.

Shapes: K candidates of a group.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from prefrm import media
from prefrm.errors import ConfigError
from prefrm.eval import JudgedGroup
from prefrm.records import PreferenceGroup
from prefrm.rewards import criterion_name
from prefrm.winmatrix import WinMatrix

__all__ = ["KINDS", "AuditedGroup", "Finding", "TagRow", "by_tag", "find"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedGroup:
    """A judged group and the digests of its candidates, "" of a missing one."""

    judged: JudgedGroup
    digests: tuple[str, ...]

    @classmethod
    def of(cls, group: PreferenceGroup, matrix: WinMatrix) -> "AuditedGroup":
        """The labels and digests of a group beside what a judge says of it."""
        digests = tuple(media.digest(one) if one else "" for one in group.candidates)
        return cls(judged=JudgedGroup.of(group, matrix), digests=digests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Two or three candidates of a record, and why they are worth a look.

    Attributes:
        kind: one of `KINDS`.
        record: the id of the group.
        candidates: the pair (i, j), of which the judge prefers i; or the cycle (i, j, k) in which i beats j,
            j beats k and k beats i.
        severity: in [0, 1]; findings of a kind are listed from the largest on.
        text: what is odd, in words.
        other: of criteria that contradict each other, the id of the other group.
    """

    kind: str
    record: str
    candidates: tuple[int, ...]
    severity: float
    text: str
    other: str = ""


def _disagreements(groups: Sequence[AuditedGroup]) -> Iterable[Finding]:
    """Labelled pairs of which the judge prefers the other candidate, by how far p is from the label."""
    for group in groups:
        for c in group.judged.comparisons:
            if not group.judged.matrix.valid[c.i, c.j]:
                continue
            p = float(group.judged.matrix.p[c.i, c.j])
            if (p - 0.5) * (c.p - 0.5) >= 0:
                continue
            i, j = (c.i, c.j) if p > 0.5 else (c.j, c.i)
            text = f"the label prefers {j}, the judge {i} with {max(p, 1 - p):.2f}"
            yield _finding("disagreement", group, (i, j), abs(p - c.p), text)


def _order_gaps(groups: Sequence[AuditedGroup]) -> Iterable[Finding]:
    """Pairs of which the verdict depends on which candidate is shown first."""
    for group in groups:
        matrix = group.judged.matrix
        for i, j in combinations(range(matrix.size), 2):
            gap = float(matrix.order_gap[i, j])
            if gap > 0:
                first, second = (i, j) if matrix.p[i, j] >= 0.5 else (j, i)
                text = f"P({first} beats {second}) changes by {gap:.2f} with the presentation order"
                yield _finding("order gap", group, (first, second), gap, text)


def _cycles(groups: Sequence[AuditedGroup]) -> Iterable[Finding]:
    """Triples in which each candidate beats the next one, by the weakest of the three verdicts."""
    for group in groups:
        matrix = group.judged.matrix
        for i, j, k in combinations(range(matrix.size), 3):
            for a, b, c in ((i, j, k), (i, k, j)):
                around = [(a, b), (b, c), (c, a)]
                if all(matrix.valid[pair] and matrix.p[pair] > 0.5 for pair in around):
                    weakest = min(float(matrix.p[pair]) for pair in around)
                    text = f"{a} beats {b}, {b} beats {c} and {c} beats {a}, each with {weakest:.2f} or more"
                    yield _finding("cycle", group, (a, b, c), 2 * weakest - 1, text)


def _criteria(groups: Sequence[AuditedGroup]) -> Iterable[Finding]:
    """Pairs of which the judge prefers one candidate by a criterion and the other by another criterion."""
    alike: dict[tuple[str, tuple[str, ...]], list[AuditedGroup]] = {}
    for group in groups:
        alike.setdefault((group.judged.prompt, group.digests), []).append(group)
    for same in alike.values():
        for one, other in combinations(same, 2):
            if one.judged.criterion == other.judged.criterion:
                continue
            first, second = one.judged.matrix, other.judged.matrix
            for i, j in combinations(range(first.size), 2):
                if not (first.valid[i, j] and second.valid[i, j]):
                    continue
                p, q = float(first.p[i, j]), float(second.p[i, j])
                if (p - 0.5) * (q - 0.5) < 0:
                    a, b = (i, j) if p > 0.5 else (j, i)
                    names = [criterion_name(each.judged.criterion) for each in (one, other)]
                    text = (
                        f"by {names[0]} {a} beats {b} with {max(p, 1 - p):.2f}, "
                        f"by {names[1]} {b} beats {a} with {max(q, 1 - q):.2f}"
                    )
                    severity = 2 * min(abs(p - 0.5), abs(q - 0.5))
                    yield _finding("criteria", one, (a, b), severity, text, other.judged.id)


def _finding(
    kind: str, group: AuditedGroup, candidates: tuple[int, ...], severity: float, text: str, other: str = ""
) -> Finding:
    return Finding(
        kind=kind,
        record=group.judged.id,
        candidates=candidates,
        severity=severity,
        text=text,
        other=other,
    )


KINDS: Mapping[str, Callable[[Sequence[AuditedGroup]], Iterable[Finding]]] = {
    "disagreement": _disagreements,
    "order gap": _order_gaps,
    "cycle": _cycles,
    "criteria": _criteria,
}
"""The searches, by the names of what they find."""


def find(groups: Iterable[AuditedGroup], kind: str, *, tag: str = "", most: int = 100) -> list[Finding]:
    """The findings of a kind, the most severe first.

    Args:
        groups: judged by one judge.
        kind: one of `KINDS`.
        tag: "name=value", of the groups that are searched; "" searches all.
        most: how many are listed.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"findings are of the kinds {', '.join(KINDS)}; received {kind!r}")
    name, _, value = tag.partition("=")
    searched = [group for group in groups if not tag or group.judged.tags.get(name) == value]
    return sorted(KINDS[kind](searched), key=lambda finding: -finding.severity)[:most]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """Groups with one value of a tag, or all of them.

    Attributes:
        tag: "name=value", "" of all groups.
        groups: how many there are.
        strict: judged pairs that have a strict label.
        agreement: share of these in which judge and label prefer the same candidate, where a verdict of 0.5
            counts half; NaN without any.
        order_gap: mean over the judged pairs; NaN where the judge has none.
        cycles: how many triples of candidates are cycles.
    """

    tag: str
    groups: int
    strict: int
    agreement: float
    order_gap: float
    cycles: int


def by_tag(groups: Sequence[AuditedGroup]) -> list[TagRow]:
    """A row for all groups, and one for each value of each tag that has several."""
    found: dict[str, list[AuditedGroup]] = {}
    for group in groups:
        for name, value in group.judged.tags.items():
            found.setdefault(f"{name}={value}", []).append(group)
    several = {tag: part for tag, part in sorted(found.items()) if len(part) < len(groups)}
    return [_row("", groups), *(_row(tag, part) for tag, part in several.items())]


def _row(tag: str, groups: Sequence[AuditedGroup]) -> TagRow:
    agreed, gaps = list[float](), list[float]()
    for group in groups:
        matrix = group.judged.matrix
        for c in group.judged.comparisons:
            if c.is_strict and matrix.valid[c.i, c.j]:
                agreed.append(0.5 + 0.5 * float(np.sign((matrix.p[c.i, c.j] - 0.5) * (c.p - 0.5))))
        upper = matrix.order_gap[np.triu_indices(matrix.size, 1)]
        gaps += upper[np.isfinite(upper)].tolist()
    return TagRow(
        tag=tag,
        groups=len(groups),
        strict=len(agreed),
        agreement=float(np.mean(agreed)) if agreed else float("nan"),
        order_gap=float(np.mean(gaps)) if gaps else float("nan"),
        cycles=sum(1 for _ in _cycles(groups)),
    )
