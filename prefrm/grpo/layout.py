"""Which process holds which candidates, and which process scores which group.

The candidates of all processes, one process after the other, form consecutive groups of one size: the
layout that TRL's sampler makes and its own advantages rely on. A group may begin on one process and end on
another; it is scored where its first candidate is, and the others send theirs there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from prefrm.errors import ConfigError

__all__ = ["Candidate", "Layout", "pack", "unpack"]

HEADER_BYTES = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt and an encoded image, None where the candidate is missing.

    A reference is not a candidate of the trainer: it is what a group of one is compared with.
    """

    prompt: str
    image: bytes | None
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
    """Candidates as bytes: a JSON header of prompts and image lengths, then the images."""
    header = json.dumps([[c.prompt, None if c.image is None else len(c.image)] for c in candidates]).encode()
    return (
        len(header).to_bytes(HEADER_BYTES, "little") + header + b"".join(c.image or b"" for c in candidates)
    )


def unpack(data: bytes) -> list[Candidate]:
    """The candidates that `pack` made `data` of."""
    offset = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")
    candidates = []
    for prompt, length in json.loads(data[HEADER_BYTES:offset]):
        image = None if length is None else data[offset : offset + length]
        candidates.append(Candidate(prompt=prompt, image=image))
        offset += length or 0
    return candidates
