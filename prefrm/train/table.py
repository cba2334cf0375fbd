"""Preference groups in one uncompressed Arrow file: memory-mapped, so that any record is read by itself.

In a parquet file, a record cannot be had without its whole row group.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prefrm.chunks import chunks
from prefrm.records import PreferenceGroup

__all__ = ["Table", "copying"]

RECORDS_IN_A_BATCH = 64
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("images", pa.list_(pa.large_binary())),
        (
            "comparisons",
            pa.list_(
                pa.struct(
                    [("i", pa.int32()), ("j", pa.int32()), ("p", pa.float64()), ("weight", pa.float64())]
                )
            ),
        ),
    ]
)


class Table:
    """The records of a file that `copying` wrote. It can be pickled; each process maps the file by itself.

    Args:
        path: the file; it may be deleted once it was read from.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    @cached_property
    def comparisons(self) -> npt.NDArray[np.int64]:
        """How many comparisons each record has."""
        counts = [batch.column("comparisons").value_lengths() for batch in self._batches]
        return np.concatenate([np.zeros(0, np.int64), *(count.to_numpy() for count in counts)]).astype(
            np.int64
        )

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The records of those numbers, in that order, as dictionaries with the columns of `SCHEMA`."""
        batches = np.searchsorted(self._starts, numbers, side="right") - 1
        return [
            self._batches[batch].slice(number - self._starts[batch], 1).to_pylist()[0]
            for number, batch in zip(numbers, batches.tolist(), strict=True)
        ]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]

    @cached_property
    def _starts(self) -> list[int]:
        sizes = [batch.num_rows for batch in self._batches]
        return [0, *np.cumsum(sizes[:-1]).tolist()]


def copying(groups: Iterable[PreferenceGroup], path: Path) -> Iterator[PreferenceGroup]:
    """The groups as they come, having been written to `path`, which is complete when they end."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in chunks(groups, RECORDS_IN_A_BATCH):
            writer.write_batch(pa.RecordBatch.from_pylist([_row(group) for group in batch], schema=SCHEMA))
            yield from batch


def _row(group: PreferenceGroup) -> dict[str, Any]:
    return {
        "id": group.id,
        "prompt": group.prompt,
        "images": group.images,
        "comparisons": [{"i": c.i, "j": c.j, "p": c.p, "weight": c.weight} for c in group.comparisons],
    }
