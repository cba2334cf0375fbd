"""Pairs on which two criteria disagree: what a judge that ignores the criterion cannot get right twice."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from prefrm.eval import JudgedGroup, measure
from prefrm.records import PreferenceGroup

__all__ = ["disputed_accuracy"]

Pair = tuple[int, int]


def disputed_accuracy(judged: Sequence[JudgedGroup], groups: Iterable[PreferenceGroup]) -> dict[str, float]:
    """The accuracy by criterion over strict pairs of which another criterion prefers the other candidate.

    Args:
        judged: a judge's groups, by the ids of `groups`; what it was told of the criterion does not matter.
        groups: the same with their criteria. Groups with the same prompt, context and candidates are one.
    """
    criteria: dict[str, str] = {}
    tasks: dict[str, object] = {}
    preferred: defaultdict[tuple[object, Pair], set[bool]] = defaultdict(set)
    for group in groups:
        criteria[group.id] = group.criterion
        tasks[group.id] = task = (group.prompt, group.context, group.candidates)
        for c in group.comparisons:
            if c.is_strict:
                preferred[task, (c.i, c.j)].add(c.p > 0.5)
    found = {}
    for criterion in sorted(set(criteria.values())):
        disputed = [
            replace(
                group,
                comparisons=tuple(
                    c
                    for c in group.comparisons
                    if c.is_strict and len(preferred[tasks[group.id], (c.i, c.j)]) == 2
                ),
            )
            for group in judged
            if criteria[group.id] == criterion
        ]
        if any(group.comparisons for group in disputed):
            found[criterion] = measure(disputed).accuracy.value
    return found
