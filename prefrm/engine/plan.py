"""What an engine must compute: which contents and ordered pairs of a group, and in passes of which shape.

Everything is planned over a group's distinct candidates in the order of their digests, so the order of the
candidates does not change what is computed. The shape of passes that groups share depends on a row's length
alone, so other groups do not change it either. No torch.

Shapes: K candidates.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from prefrm.media import digest
from prefrm.winmatrix import Group

__all__ = [
    "WHOLE",
    "GroupPlan",
    "Key",
    "Pair",
    "Shape",
    "enough_rows",
    "fixed_shape",
    "plan_group",
    "runs_of_rows",
]

T = TypeVar("T")


class Key(NamedTuple):
    """Identifies a candidate or a context image: as which kind it is read, and the digest of its data."""

    kind: str
    digest: str


Pair = tuple[Key, Key]
"""Two candidates, in the order shown."""


# Of a length's power of two: no more than a sixteenth of a row is padding, and few lengths are left. A row of
# one token, such as an answer of a late judge, is not padded: it would be computed eight times.
STEPS = 16
LEAST_STEP = 8
MOST_ROWS = 2048
"""Of a pass: of one token each they take a GPU about as long as it takes to launch a pass (`pass_sizes`)."""
WHOLE = 32
"""Numbers in a run of a CPU's vector code; other code computes a remainder, and a last bit may differ."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a pass: how many rows, and how many tokens each."""

    rows: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """The distinct candidates of a group and where they stand.

    Attributes:
        prompt, criterion: of the group.
        candidates: each distinct candidate, in ascending order of the keys.
        places: length K; each candidate's key, or None if the candidate is missing.
        context: each context image with its key, in order.
    """

    prompt: str
    criterion: str
    candidates: dict[Key, bytes | str]
    places: tuple[Key | None, ...]
    context: tuple[tuple[Key, bytes], ...] = ()

    @property
    def contents(self) -> list[tuple[Key, bytes | str]]:
        """Candidates and context images, each with its key."""
        return [*self.candidates.items(), *self.context]

    @property
    def opening(self) -> tuple[Hashable, ...]:
        """Identifies what all candidates follow, but for the criterion: the prompt and the context images."""
        return (self.prompt, *(key for key, _ in self.context))

    @property
    def shared(self) -> tuple[Hashable, Hashable]:
        """Identify what groups have in common that differ in the criterion alone, or in the candidates: the
        opening, and all candidates after it."""
        return self.opening, (self.opening, tuple(self.candidates))

    def pairs(self, readable: Sequence[Key]) -> list[Pair]:
        """Every ordered pair of readable candidates that stands for at least one pair of places.

        A candidate is paired with itself only if it stands in several places.
        """
        return [(a, b) for a in readable for b in readable if a != b or self.places.count(a) > 1]

    def spread(self, log_odds: Mapping[Pair, float]) -> npt.NDArray[np.float64]:
        """[K, K] log-odds of the places from those of the distinct candidates; NaN where there are none."""
        rows = [
            [log_odds.get((a, b), np.nan) if a and b else np.nan for b in self.places] for a in self.places
        ]
        return np.array(rows, dtype=np.float64)

    def unordered(self, reasons: Mapping[Pair, str], errors: Sequence[str]) -> dict[tuple[int, int], str]:
        """Reasons of pairs (i, j) of places, i < j, from those of candidates in either order.

        Candidates that have an error have no others.
        """
        usable = [(n, key) for n, key in enumerate(self.places) if key and not errors[n]]
        either = dict(reasons) | {pair[::-1]: reason for pair, reason in reasons.items()}
        pairs = combinations(usable, 2)
        return {(i, j): either[a, b] for (i, a), (j, b) in pairs if (a, b) in either}


def plan_group(group: Group, kind: str = "image") -> GroupPlan:
    """The plan of a group whose candidates are read as that kind; an empty one counts as missing."""
    places = tuple(Key(kind, digest(content)) if content else None for content in group.candidates)
    found = {key: content for key, content in zip(places, group.candidates, strict=True) if key and content}
    context = tuple((Key("image", digest(image)), image) for image in group.context)
    return GroupPlan(
        prompt=group.prompt,
        criterion=group.criterion,
        candidates=dict(sorted(found.items())),
        places=places,
        context=context,
    )


def runs_of_rows(lengths: Sequence[int], tokens: int) -> Iterator[range]:
    """Rows of those lengths in runs that, padded to their longest, have at most `tokens`, or one row."""
    start, longest = 0, 0
    for n, length in enumerate(lengths):
        longest = max(longest, length)
        if n > start and (n + 1 - start) * longest > tokens:
            yield range(start, n)
            start, longest = n, length
    if start < len(lengths):
        yield range(start, len(lengths))


def fixed_shape(length: int, tokens: int) -> Shape:
    """The one shape of all passes with a row of that length: `tokens` and `MOST_ROWS` at most, or one row."""
    octave = 1 << (length - 1).bit_length() >> 1
    step = max(octave // STEPS, LEAST_STEP)
    rounded = 1 if length == 1 else -(-length // step) * step
    # So that a pass of several rows has whole runs of tokens.
    multiple = WHOLE // math.gcd(WHOLE, rounded)
    rows = min(tokens // rounded, MOST_ROWS) // multiple * multiple
    return Shape(rows=max(1, rows), length=rounded)


def enough_rows(most: int, rows: int) -> int:
    """The least of `most`, half of it, a quarter and so on, rounded up, that is not below `rows`."""
    while (half := -(-most // 2)) >= rows and half < most:
        most = half
    return most
