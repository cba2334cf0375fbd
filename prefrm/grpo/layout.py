"""Which process holds which candidates, and which process scores which group.

The candidates of all processes, one process after the other, form consecutive groups of one size: the
layout that TRL's sampler makes and its own advantages rely on. A group may begin on one process and end on
another; it is scored where its first candidate is, and the others send theirs there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TypeVar

from prefrm.errors import ConfigError

__all__ = ["Candidate", "Layout", "pack", "unpack"]

HEADER_BYTES = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt and what answers it: an encoded image or video, a text, or None where it is missing.

    Attributes:
        prompt: with its `context`, the same for all candidates of a group.
        content: of the candidate.
        context: encoded images that belong to the prompt.
        reference: whether it is the reference with which a group of one is compared, not a candidate.
    """

    prompt: str
    content: bytes | str | None
    context: tuple[bytes, ...] = ()
    reference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many candidates each process holds (`counts`, by rank), in groups of `size`, seen from `rank`."""

    counts: tuple[int, ...]
    size: int
    rank: int

    def __post_init__(self) -> None:
        if sum(self.counts) % self.size:
            raise ConfigError(
                f"{sum(self.counts)} completions (by process: {list(self.counts)}) are no whole groups of "
                f"{self.size}; num_generations must be the trainer's own"
            )

    @property
    def start(self) -> int:
        """The place of this process's first candidate among all."""
        return sum(self.counts[: self.rank])

    @property
    def count(self) -> int:
        """How many candidates this process holds."""
        return self.counts[self.rank]

    @property
    def head(self) -> int:
        """How many candidates of this process, its first ones, are of a group that began on another."""
        return min(self.count, -self.start % self.size)

    @property
    def owned(self) -> int:
        """How many groups begin here, and so are scored here."""
        return -(-(self.count - self.head) // self.size)

    def collect(self, local: Sequence[T], heads: Sequence[Sequence[T]]) -> list[list[T]]:
        """The groups scored here: this process's candidates after its head, then the heads behind it."""
        rows = [*local[self.head :], *chain.from_iterable(heads[self.rank + 1 :])]
        return [rows[n * self.size : (n + 1) * self.size] for n in range(self.owned)]

    def own(self, rows: Sequence[T]) -> list[T]:
        """This process's part of a sequence over all candidates."""
        return list(rows[self.start : self.start + self.count])


def pack(candidates: Sequence[Candidate]) -> bytes:
    """Candidates as bytes: a JSON header, then the encoded contents, each once.

    The header has the lengths of the contents, and of each candidate its prompt, its text or the place of its
    content, and the places of its context.
    """
    places: dict[bytes, int] = {}

    def place(data: bytes) -> int:
        return places.setdefault(data, len(places))

    rows = [
        [
            one.prompt,
            place(one.content) if isinstance(one.content, bytes) else one.content,
            list(map(place, one.context)),
        ]
        for one in candidates
    ]
    header = json.dumps([list(map(len, places)), rows]).encode()
    return len(header).to_bytes(HEADER_BYTES, "little") + header + b"".join(places)


def unpack(data: bytes) -> list[Candidate]:
    """The candidates that `pack` made `data` of."""
    offset = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")
    lengths, rows = json.loads(data[HEADER_BYTES:offset])
    ends = list(accumulate(lengths, initial=offset))
    contents = [data[start:end] for start, end in pairwise(ends)]
    return [
        Candidate(
            prompt=prompt,
            content=contents[content] if isinstance(content, int) else content,
            context=tuple(contents[place] for place in context),
        )
        for prompt, content, context in rows
    ]
