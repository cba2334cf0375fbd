"""Comparisons of several groups at once: what they have in common is read once, and then their answers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch

from prefrm.engine.attention import KVBlocks
from prefrm.engine.cache import EncodedImage
from prefrm.engine.passes import Blocks, Passes, Segments
from prefrm.engine.plan import Pair
from prefrm.engine.refcounted import RefCounted
from prefrm.judge import Judge, Name, Tree, log_odds

__all__ = ["Comparer", "Outcome", "Prefixes", "Scored"]

Prefixes = RefCounted[tuple[KVBlocks, int]]
"""Where the keys and values of prefixes are, by what they hold: a prompt, and digests of context images."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """A group: what its prefix holds, its encoded images, and the tree of all.

    Attributes:
        prefix: the prompt, and the digests of the context images; equal ones are the same in all groups.
        images: the candidates, by digest.
        context: the context images.
        tree: of the group.
    """

    prefix: tuple[str, ...]
    images: Mapping[str, EncodedImage]
    context: tuple[EncodedImage, ...] = ()
    tree: Tree

    def named(self, segments: Segments) -> Segments:
        """Segments under names that are unique among groups; equal ones of equal prefixes are the same."""
        return {
            (self.prefix, *name): segment.after(
                segment.start, *((self.prefix, *seen) for seen in segment.sees)
            )
            for name, segment in segments.items()
        }


class Comparer:
    """Compares images of groups; what it has read of them serves every later comparison.

    Args:
        judge: in evaluation mode.
        passes: run the segments.
        groups: that are compared.
        prefixes: of earlier groups; a use of each is counted.
    """

    def __init__(self, judge: Judge, passes: Passes, groups: Sequence[Scored], prefixes: Prefixes) -> None:
        self._judge = judge
        self._passes = passes
        shown = (x for group in groups for x in (*group.images.values(), *group.context))
        self._features = {x.image: x.features for x in shown}
        self._blocks = self._prefixes(groups, prefixes)
        deeper = [[group.named(level) for level in group.tree.levels[1:]] for group in groups]
        kept: Blocks = {}
        for levels in zip_longest(*deeper, fillvalue={}):
            # No later level sees the one before the last.
            kept = passes.keep(_merged(levels), {**self._blocks, **kept}, self._features)
        self._blocks = {**self._blocks, **kept}

    def _prefixes(self, groups: Sequence[Scored], prefixes: Prefixes) -> Blocks:
        found: Blocks = {}
        openings: Segments = {}
        for group in groups:
            opening = group.named(group.tree.levels[0])
            if (known := prefixes.get(group.prefix)) is None:
                openings = {**openings, **opening}
            else:
                found = {**found, **dict.fromkeys(opening, known)}
        found = {**found, **self._passes.keep(openings, {}, self._features)}
        for group in groups:
            for name in group.named(group.tree.levels[0]):
                prefixes.use(group.prefix, found[name])
        return found

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
        places = [[place[group.prefix, *name] for name in group.tree.readouts(pair)] for pair in pairs]
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


def _merged(parts: Iterable[Segments]) -> Segments:
    return {name: segment for part in parts for name, segment in part.items()}
