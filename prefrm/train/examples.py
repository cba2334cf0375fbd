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
from datasets import Dataset

from prefrm.errors import DatasetError
from prefrm.records import Comparison, read_groups

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
        groups: the split's table.
        index: for each example its record, its comparison (-1 is all of them) and whether that is swapped.
    """

    def __init__(self, groups: Dataset, index: Sequence[tuple[int, int, bool]]) -> None:
        self._groups = groups
        self._index = np.array(index, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        """Every example's number once, shuffled by `seed`, from the place `skip` on."""
        generator = torch.Generator().manual_seed(seed)
        yield from torch.randperm(len(self), generator=generator)[skip:].tolist()

    def fetch(self, numbers: Sequence[int]) -> list[Example]:
        """The examples of those numbers, in that order."""
        if not numbers:
            return []
        rows = self._index[list(numbers)].tolist()
        records = self._groups[[record for record, _, _ in rows]]
        columns = (records[name] for name in ("id", "prompt", "images", "comparisons"))
        return [
            _example(id, prompt, images, comparisons, number, bool(swapped))
            for id, prompt, images, comparisons, (_, number, swapped) in zip(*columns, rows, strict=True)
        ]


def load_examples(folder: Path, split: str, *, unit: Unit, cache: Path) -> StoredExamples:
    """Every example of a split: `unit="pair"` has each comparison in both presentation orders.

    Args:
        folder: a dataset folder.
        split: one of its splits.
        unit: what one example is.
        cache: where the memory-mapped table is kept; the caller deletes it.

    Raises:
        DatasetError: the split is absent, unreadable, or compares nothing.
        RecordError: a record breaks its own rules.
    """
    index: list[tuple[int, int, bool]] = []
    for record, group in enumerate(read_groups(folder, split)):
        if unit == "pair":
            index += [
                (record, n, swapped) for n in range(len(group.comparisons)) for swapped in (False, True)
            ]
        elif group.comparisons:
            index.append((record, -1, False))
    if not index:
        raise DatasetError(f"{folder}/{split}.parquet holds no comparison, so there is nothing to learn from")
    groups = Dataset.from_parquet(
        str(folder / f"{split}.parquet"),
        cache_dir=str(cache),
        columns=["id", "prompt", "images", "comparisons"],
    )
    return StoredExamples(groups, index)


def _example(
    id: str, prompt: str, images: list[Any], comparisons: list[Any], number: int, swapped: bool
) -> Example:
    encoded = [image["bytes"] for image in images]
    if number < 0:
        return group_example(id, prompt, encoded, [Comparison(**c) for c in comparisons])
    comparison = Comparison(**comparisons[number])
    return pair_example(id, prompt, encoded, comparison.swapped() if swapped else comparison)
