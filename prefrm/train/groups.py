"""The preference groups of a split in a shuffled order: from a memory-mapped file, or streamed.

Groups without comparisons are left out. Both classes are a `prefrm.train.mixing.Groups`.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefrm.records import (
    PreferenceGroup,
    arrow_schema,
    count_row_groups,
    from_row,
    import_pyarrow,
    read_row_groups,
    to_row,
)

__all__ = ["StoredGroups", "StreamedGroups", "storing"]


class StoredGroups:
    """Random access to the groups of a file that `storing` wrote.

    It can be pickled; each process maps the file by itself. The file may be deleted once it is open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __len__(self) -> int:
        return int(self._file.num_record_batches)

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        """The number of every group once, shuffled by `seed`, from the place `skip` on."""
        generator = torch.Generator().manual_seed(seed)
        yield from torch.randperm(len(self), generator=generator)[skip:].tolist()

    def fetch(self, entry: int) -> PreferenceGroup:
        """The group of that number."""
        (row,) = self._file.get_batch(entry).to_pylist()
        return from_row(row)

    @cached_property
    def _file(self) -> Any:
        pa, _ = import_pyarrow()
        return pa.ipc.open_file(pa.memory_map(str(self._path)))


def storing(groups: Iterable[PreferenceGroup], path: Path) -> Iterator[PreferenceGroup]:
    """Pass the groups on and write those with comparisons to `path`, which is complete after the last one.

    An uncompressed Arrow file with a record batch for each group: a parquet file gives whole row groups only.
    """
    (pa, _), schema = import_pyarrow(), arrow_schema()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for group in groups:
            if group.comparisons:
                writer.write_batch(pa.RecordBatch.from_pylist([to_row(group)], schema=schema))
            yield group


class StreamedGroups:
    """The groups of a split that is never held: row groups are read as they are needed.

    In memory are one row group as it stands in the file, 64 decoded records, and a buffer of groups, from
    which the next one is drawn. So the order is less well shuffled than that of `StoredGroups`.

    Args:
        folder: a dataset folder.
        split: one of its splits.
        size: how many of its groups have comparisons.
        buffer: at least 1; how many groups wait in memory.
    """

    def __init__(self, folder: Path, split: str, *, size: int, buffer: int) -> None:
        self._folder = folder
        self._split = split
        self._size = size
        self._buffer = buffer

    def __len__(self) -> int:
        return self._size

    def order(self, seed: int, skip: int = 0) -> Iterator[PreferenceGroup]:
        """Every group once, shuffled by `seed`; those before the place `skip` are read and passed over."""
        return islice(self._shuffled(np.random.default_rng(seed)), skip, None)

    def fetch(self, entry: PreferenceGroup) -> PreferenceGroup:
        """The group itself: `order` gives it whole."""
        return entry

    def _shuffled(self, generator: np.random.Generator) -> Iterator[PreferenceGroup]:
        waiting: list[PreferenceGroup] = []
        row_groups = generator.permutation(count_row_groups(self._folder, self._split)).tolist()
        for group in read_row_groups(self._folder, self._split, row_groups):
            if group.comparisons:
                waiting.append(group)
            if len(waiting) > self._buffer:
                yield _take(waiting, generator)
        while waiting:
            yield _take(waiting, generator)


def _take(waiting: list[PreferenceGroup], generator: np.random.Generator) -> PreferenceGroup:
    place = int(generator.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()
