"""The third pass: the judgements of one prompt, with its context, by one criterion, become preference groups.

Judgements about the same two candidates become one comparison: p is the share of votes, weight their number.
Comparisons that share candidates, directly or through others, become one group, or several where there are
too many candidates; no comparison is lost. Candidates are ordered by their digests, so that a candidate's
index is independent of its label.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, count
from typing import NamedTuple

__all__ = ["Draft", "Said", "draft_groups"]


class Said(NamedTuple):
    """A judgement or a rating, as it is read from the spool; candidates are named by their digests.

    Attributes:
        number: place in the source.
        name: of the row.
        first, second: the candidates; `second` is None for a rating.
        value: p of a judgement, score of a rating or None.
        weight: of a judgement; of a rating, the deviation.
        cluster: the set of a judgement or a rating.
        tags: as JSON.
    """

    number: int
    name: str
    first: str
    second: str | None
    value: float | None
    weight: float
    cluster: str
    tags: str


@dataclass(slots=True)
class _Merged:
    """The judgements about two candidates; `a` is the one with the lower digest."""

    a: str
    b: str
    first: "Said"
    votes: float = 0.0  # for a
    weight: float = 0.0
    sides: set[bool] = field(default_factory=set)
    tags: list[str] = field(default_factory=list)
    once: set[tuple[str, float]] = field(default_factory=set)  # judgements of sets

    def add(self, p: float, weight: float, tags: str, once: str = "") -> None:
        """Take in a judgement: p that `a` is preferred; of those of one set `once`, equal ones count once."""
        if once and (once, p) in self.once:
            return
        self.once.add((once, p))
        self.votes += p * weight
        self.weight += weight
        if p != 0.5:
            self.sides.add(p > 0.5)
        self.tags.append(tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A group whose candidates are digests.

    Attributes:
        id: name of the first row that it was made from.
        candidates: digests, in order.
        comparisons: (i, j, p, weight), i < j.
        quality: scores, where all candidates were rated in one set and nothing else was said about them.
        tags: those that all its judgements have.
        contradictory: the comparisons, as (i, j), on which judgements disagree about the preferred side.
    """

    id: str
    candidates: tuple[str, ...]
    comparisons: tuple[tuple[int, int, float, float], ...]
    quality: tuple[float, ...] | None
    tags: Mapping[str, str]
    contradictory: tuple[tuple[int, int], ...]


def draft_groups(said: Sequence[Said], max_candidates: int) -> Iterator[Draft]:
    """The groups of what was said under one prompt, in order of first appearance.

    A candidate that was rated alone in its set is in no group.
    """
    merged: dict[tuple[str, str], _Merged] = {}

    def pair(one: Said, first: str, second: str, p: float | None, weight: float) -> None:
        if second < first:
            first, second, p = second, first, None if p is None else 1.0 - p
        found = merged.setdefault((first, second), _Merged(a=first, b=second, first=one))
        if p is not None:
            found.add(p, weight, one.tags, one.cluster if one.second is not None else "")
        else:
            found.tags.append(one.tags)

    sets: dict[str, list[Said]] = {}
    for one in said:
        if one.second is not None:
            assert one.value is not None, "a judgement has a p"
            pair(one, one.first, one.second, one.value, one.weight)
        else:
            sets.setdefault(one.cluster, []).append(one)
    for ratings in sets.values():
        for rated in _chunks(_once(ratings), max_candidates):
            for a, b in combinations(rated, 2):
                pair(min(a, b, key=lambda x: x.number), a.first, b.first, _preference(a, b), 1.0)
    scores, used = _scores(said, sets), set[str]()
    for linked in _linked(list(merged.values())):
        for part in _bounded(linked, max_candidates):
            name = min((one.first.number, one.first.name) for one in part)[1]
            # Pairs of one ranking may have come into several groups.
            id = next(id for n in count(1) if (id := name if n == 1 else f"{name}#{n}") not in used)
            used.add(id)
            yield _draft(id, part, scores)


def _once(ratings: Iterable[Said]) -> list[Said]:
    """One rating of each candidate of a set, in the order of digests; of several, the mean score."""
    by_candidate: dict[str, list[Said]] = {}
    for one in ratings:
        by_candidate.setdefault(one.first, []).append(one)
    return [_mean(same) for _, same in sorted(by_candidate.items())]


def _mean(same: list[Said]) -> Said:
    values = [one.value for one in same if one.value is not None]
    if len(same) == 1:
        return same[0]
    deviation = math.sqrt(sum(one.weight**2 for one in same)) / len(same)
    return Said(
        number=same[0].number,
        name=same[0].name,
        first=same[0].first,
        second=None,
        value=math.fsum(values) / len(values) if values else None,
        weight=deviation,
        cluster=same[0].cluster,
        tags=same[0].tags,
    )


def _preference(a: Said, b: Said) -> float | None:
    """P(a is preferred to b) by their scores; None if one has none."""
    if a.value is None or b.value is None:
        return None
    if spread := math.hypot(a.weight, b.weight):
        return 0.5 * math.erfc((b.value - a.value) / spread / math.sqrt(2))
    return 0.5 if a.value == b.value else float(a.value > b.value)


def _scores(said: Sequence[Said], sets: Mapping[str, list[Said]]) -> dict[str, float]:
    """The score of each candidate, if there are nothing but ratings, and one of each candidate."""
    if any(one.second is not None for one in said):
        return {}
    means = [one for ratings in sets.values() for one in _once(ratings)]
    known = {one.first: one.value for one in means if one.value is not None}
    # A candidate with scores of two sets, such as annotators, has none that is its own.
    return known if len(known) == len(means) else {}


def _draft(id: str, part: list[_Merged], scores: Mapping[str, float]) -> Draft:
    candidates = tuple(sorted({digest for one in part for digest in (one.a, one.b)}))
    place = {digest: n for n, digest in enumerate(candidates)}
    judged = [one for one in part if one.weight]
    tags = [json.loads(text) for text in dict.fromkeys(text for one in part for text in one.tags)]
    return Draft(
        id=id,
        candidates=candidates,
        comparisons=tuple(
            sorted((place[c.a], place[c.b], min(1.0, c.votes / c.weight), c.weight) for c in judged)
        ),
        quality=tuple(scores[digest] for digest in candidates) if set(candidates) <= scores.keys() else None,
        tags={k: v for k, v in tags[0].items() if all(other.get(k) == v for other in tags)},
        contradictory=tuple((place[c.a], place[c.b]) for c in judged if len(c.sides) == 2),
    )


def _bounded(pairs: list[_Merged], most: int) -> Iterator[list[_Merged]]:
    """Part after part takes, in order, each remaining pair that shares a candidate with it and fits."""
    while pairs:
        candidates, part, rest = {pairs[0].a}, [], []
        for pair in pairs:
            both = {pair.a, pair.b}
            if candidates & both and len(candidates | both) <= most:
                candidates |= both
                part.append(pair)
            else:
                rest.append(pair)
        yield part
        pairs = rest


def _linked(pairs: list[_Merged]) -> list[list[_Merged]]:
    """Pairs that share candidates, directly or through others; in order of first appearance."""
    above: dict[str, str] = {}

    def top(node: str) -> str:
        while (parent := above.setdefault(node, node)) != node:
            above[node] = node = above[parent]
        return node

    for pair in pairs:
        above[top(pair.a)] = top(pair.b)
    clusters: dict[str, list[_Merged]] = {}
    for pair in pairs:
        clusters.setdefault(top(pair.a), []).append(pair)
    return list(clusters.values())


def _chunks(items: list[Said], size: int) -> Iterator[list[Said]]:
    """Parts of nearly equal size: none has a single item while another has many."""
    parts = max(1, math.ceil(len(items) / size))
    for n in range(parts):
        yield items[n * len(items) // parts : (n + 1) * len(items) // parts]
