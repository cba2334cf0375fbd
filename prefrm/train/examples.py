"""What a judge learns from, one example at a time: comparisons between images, in the order shown.

An example is plain data, whether it was read from memory-mapped tables or from a stream:

    {"id": record, "prompt": text, "images": [encoded], "first": [int], "second": [int], "p": [float],
     "weight": [float]}

`first[n]` and `second[n]` are places in `images`, `first[n]` is shown first, and `p[n]` is the
probability that it is preferred. Which examples there are is decided here; their order is not.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch

from prefrm.errors import DatasetError
from prefrm.records import Comparison
from prefrm.train.prepared import prepare_split
from prefrm.train.table import Table

__all__ = ["Example", "StoredExamples", "Unit", "group_example", "load_examples", "pair_example"]

Unit = Literal["pair", "group"]
"""What an example is: a comparison in one presentation order, or a group with all comparisons, each once."""


class Example(TypedDict):
    """As the module says."""

    id: str
    prompt: str
    images: list[bytes]
    first: list[int]
    second: list[int]
    p: list[float]
    weight: list[float]


def pair_example(id: str, prompt: str, images: Sequence[Any], shown: Comparison) -> Example:
    """One comparison of a record, its candidate `i` shown first; `images` are the record's candidates."""
    return Example(
        id=id,
        prompt=prompt,
        images=[images[shown.i], images[shown.j]],
        first=[0],
        second=[1],
        p=[shown.p],
        weight=[shown.weight],
    )


def group_example(id: str, prompt: str, images: Sequence[Any], comparisons: Sequence[Comparison]) -> Example:
    """All comparisons of a record, each once, with the candidates that they compare and no others."""
    compared = sorted({place for c in comparisons for place in (c.i, c.j)})
    places = {candidate: n for n, candidate in enumerate(compared)}
    return Example(
        id=id,
        prompt=prompt,
        images=[images[candidate] for candidate in compared],
        first=[places[c.i] for c in comparisons],
        second=[places[c.j] for c in comparisons],
        p=[c.p for c in comparisons],
        weight=[c.weight for c in comparisons],
    )


class StoredExamples:
    """The examples of a split, by number; images stay in a memory-mapped table, once each.

    Args:
        table: the split's records.
        unit: "pair" has each comparison in both presentation orders, one after the other.
    """

    def __init__(self, table: Table, unit: Unit) -> None:
        self._table = table
        self._unit = unit
        counts = table.comparisons
        # Of each example: its record and, of a pair, its comparison and whether that is swapped.
        if unit == "pair":
            self._records = np.repeat(np.arange(len(counts)), 2 * counts)
            starts = np.repeat(np.cumsum(2 * counts) - 2 * counts, 2 * counts)
            self._numbers, self._swapped = np.divmod(np.arange(len(self._records)) - starts, 2)
        else:
            self._records = np.flatnonzero(counts)
            self._numbers = self._swapped = np.zeros_like(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        """Every example's number once, shuffled by `seed`, from the place `skip` on."""
        generator = torch.Generator().manual_seed(seed)
        yield from torch.randperm(len(self), generator=generator)[skip:].tolist()

    def fetch(self, numbers: Sequence[int]) -> list[Example]:
        """The examples of those numbers, in that order."""
        chosen = list(numbers)
        rows = self._table.rows(self._records[chosen].tolist())
        places = zip(rows, self._numbers[chosen].tolist(), self._swapped[chosen].tolist(), strict=True)
        return [self._example(row, number, bool(swapped)) for row, number, swapped in places]

    def _example(self, row: dict[str, Any], number: int, swapped: bool) -> Example:
        comparisons = [Comparison(**c) for c in row["comparisons"]]
        if self._unit == "group":
            return group_example(row["id"], row["prompt"], row["images"], comparisons)
        shown = comparisons[number].swapped() if swapped else comparisons[number]
        return pair_example(row["id"], row["prompt"], row["images"], shown)


def load_examples(folder: Path, split: str, *, unit: Unit, cache: Path) -> StoredExamples:
    """The examples of a split, from its table beside the data or, where none can be kept there, in `cache`.

    Raises:
        DatasetError: the split is absent, unreadable, or compares nothing.
        RecordError: a record breaks its own rules.
    """
    prepared = prepare_split(folder, split, table=True, spare=cache)
    assert prepared.table is not None
    if not prepared.survey.comparisons:
        raise DatasetError(f"{folder}/{split}.parquet holds no comparison, so there is nothing to learn from")
    return StoredExamples(Table(prepared.table), unit)
