"""Examples of a split that is never held: row groups are read as they are needed, in a shuffled order.

What is in memory at once: one row group as it stands in the file, 64 records of it, and a buffer of
examples, from which the next one is drawn.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from prefrm.records import PreferenceGroup, count_row_groups, read_row_groups
from prefrm.train.examples import Example, Unit, group_example, pair_example

__all__ = ["StreamedExamples"]


class StreamedExamples:
    """The examples of a split, as `StoredExamples` has them, in an order that is less well shuffled.

    Args:
        folder: a dataset folder.
        split: one of its splits.
        unit: what one example is.
        size: how many there are.
        buffer: at least 1; how many of them wait in memory.
    """

    def __init__(self, folder: Path, split: str, *, unit: Unit, size: int, buffer: int) -> None:
        self._folder = folder
        self._split = split
        self._unit = unit
        self._size = size
        self._buffer = buffer

    def __len__(self) -> int:
        return self._size

    def order(self, seed: int, skip: int = 0) -> Iterator[Example]:
        """Every example once, shuffled by `seed`; those before the place `skip` are read and passed over."""
        return islice(self._shuffled(np.random.default_rng(seed)), skip, None)

    def fetch(self, entries: Sequence[Example]) -> list[Example]:
        """The examples themselves: `order` gives them whole."""
        return list(entries)

    def _shuffled(self, generator: np.random.Generator) -> Iterator[Example]:
        waiting: list[Example] = []
        for example in self._read(
            generator.permutation(count_row_groups(self._folder, self._split)).tolist()
        ):
            waiting.append(example)
            if len(waiting) > self._buffer:
                yield _take(waiting, generator)
        while waiting:
            yield _take(waiting, generator)

    def _read(self, row_groups: Sequence[int]) -> Iterator[Example]:
        for group in read_row_groups(self._folder, self._split, row_groups):
            yield from _examples(group, self._unit)


def _examples(group: PreferenceGroup, unit: Unit) -> Iterator[Example]:
    if unit == "group":
        if group.comparisons:
            yield group_example(group.id, group.prompt, group.images, group.comparisons)
        return
    for comparison in group.comparisons:
        for shown in (comparison, comparison.swapped()):
            yield pair_example(group.id, group.prompt, group.images, shown)


def _take(waiting: list[Example], generator: np.random.Generator) -> Example:
    place = int(generator.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()
