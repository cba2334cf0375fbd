"""Comparisons of several groups at once: what they have in common is read once, and then their answers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch

from prefrm.engine.cache import EncodedContent
from prefrm.engine.passes import Blocks, Passes, Segments
from prefrm.engine.plan import GroupPlan, Key, Pair
from prefrm.engine.refcounted import RefCounted
from prefrm.judge import Judge, Name, Tree, log_odds

__all__ = ["Comparer", "Outcome", "Scored", "SharedBlocks"]

V = TypeVar("V")
SharedBlocks = RefCounted[Blocks]
"""Blocks that later groups of a call see as well, by `GroupPlan.shared`."""


class Outcome(NamedTuple):
    """What one presentation order of a pair gave.

    Attributes:
        log_odds: that the first of two is preferred; NaN where the answers are too improbable.
        tie: P(tie) of a judge with ties.
        label_mass: probability of all answers together, of a judge that reads it.
    """

    log_odds: float
    tie: float | None
    label_mass: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """A group: its plan, its encoded contents, and the tree of all.

    Attributes:
        plan: of the group.
        candidates: those that can be read.
        context: the context images.
        tree: of the group.
    """

    plan: GroupPlan
    candidates: Mapping[Key, EncodedContent]
    context: tuple[EncodedContent, ...] = ()
    tree: Tree

    @property
    def contents(self) -> list[EncodedContent]:
        """All of them."""
        return [*self.candidates.values(), *self.context]

    @cached_property
    def names(self) -> list[dict[Name, Name]]:
        """Of the segments of each level of the tree, names by what they depend on: equal ones of two groups
        are the same."""
        return [{name: self._scope(n) + name for name in level} for n, level in enumerate(self.tree.levels)]

    def named(self, segments: Segments) -> Segments:
        """Segments of one level, or answers, under such names."""
        return {
            self.name(name): segment.after(segment.start, *map(self.name, segment.sees))
            for name, segment in segments.items()
        }

    def name(self, name: Name) -> Name:
        """Of a segment or an answer."""
        found = self._shared_names.get(name)
        return self._scope(len(self.tree.levels)) + name if found is None else found

    @cached_property
    def _shared_names(self) -> dict[Name, Name]:
        return {name: full for level in self.names for name, full in level.items()}

    def _scope(self, level: int) -> Name:
        """What the segments of a level depend on, besides the candidates in their names."""
        first = self.tree.criterion_level
        is_one = first is not None and level >= first
        return (self.plan.opening, self.plan.criterion if is_one else None)


class Comparer:
    """Compares candidates of groups; what it has read of them serves every later comparison.

    Args:
        judge: in evaluation mode.
        passes: run the segments.
        groups: that are compared.
        shared: blocks of earlier groups; a use of those of each group is counted.
    """

    def __init__(self, judge: Judge, passes: Passes, groups: Sequence[Scored], shared: SharedBlocks) -> None:
        self._judge = judge
        self._passes = passes
        self._features = {
            image: features for one in groups for x in one.contents for image, features in x.features.items()
        }
        blocks: Blocks = _merged(shared.get(key) or {} for group in groups for key in group.plan.shared)
        for levels in zip(*([*map(one.named, one.tree.levels)] for one in groups), strict=True):
            unread = {name: row for name, row in _merged(levels).items() if name not in blocks}
            blocks = {**blocks, **passes.keep(unread, blocks, self._features)}
        for group in groups:
            opening, *others = group.names
            for key, level in zip(group.plan.shared, (opening, _merged(others)), strict=True):
                shared.use(key, {name: blocks[name] for name in level.values()})
        # Answers see no level between the first and the last one.
        seen = (full for group in groups for n in (0, -1) for full in group.names[n].values())
        self._blocks = {name: blocks[name] for name in seen}

    def compare(self, asked: Sequence[tuple[Scored, Sequence[Pair]]]) -> list[dict[Pair, Outcome]]:
        """The outcomes of each group's pairs that the judge can read, the first of a pair shown first."""
        readable = [(group, group.tree.readable(sorted(pairs))) for group, pairs in asked]
        answers = [group.named(group.tree.answers(pairs)) for group, pairs in readable]
        rows = _merged(answers)
        readings = self._passes.read(list(rows.values()), self._blocks, self._features)
        place = {name: n for n, name in enumerate(rows)}
        return [self._outcomes(group, pairs, readings, place) for group, pairs in readable]

    def _outcomes(
        self, group: Scored, pairs: Sequence[Pair], readings: torch.Tensor, place: Mapping[Name, int]
    ) -> dict[Pair, Outcome]:
        if not pairs:
            return {}
        places = [[place[group.name(name)] for name in group.tree.readouts(pair)] for pair in pairs]
        pairs_N2 = torch.tensor(places)
        columns = (
            *log_odds(self._judge.outcomes(readings, pairs_N2)),
            self._judge.label_mass(readings, pairs_N2),
        )
        rows = ([None] * len(pairs) if column_N is None else column_N.tolist() for column_N in columns)
        outcomes = dict(zip(pairs, map(Outcome._make, zip(*rows, strict=True)), strict=True))
        return {pair: self._bounded(group.tree, pair, outcome) for pair, outcome in outcomes.items()}

    def _bounded(self, tree: Tree, pair: Pair, outcome: Outcome) -> Outcome:
        """The outcome, without log-odds where the answers have too little probability."""
        if not (reason := self._judge.spec.improbable(outcome.label_mass)):
            return outcome
        tree.refused[pair] = reason
        return outcome._replace(log_odds=math.nan)


def _merged(parts: Iterable[Mapping[Name, V]]) -> dict[Name, V]:
    return {name: value for part in parts for name, value in part.items()}
