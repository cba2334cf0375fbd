"""Rows of parquet and Arrow files, of which a bounded piece is in memory.

A column with the Image feature of `datasets` is a dictionary of "bytes" and "path"; a binary column is bytes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_recipes.readers.part import Numbered
from prefrm.errors import DataError, DatasetError, missing_extra

__all__ = ["read_arrow", "read_parquet", "survey_parquet"]

ROWS = 16  # decoded together; a row may hold several images of megabytes
BUFFER_BYTES = 2**20


def survey_parquet(path: Path) -> tuple[int, list[str]]:
    """Number of rows and names of columns of a parquet file. Raises `DatasetError` if it is damaged."""
    with _parquet(path) as file:
        return int(file.metadata.num_rows), list(file.schema_arrow.names)


def read_parquet(path: Path, columns: Sequence[str], start: int) -> Iterator[Numbered]:
    """(number, row) from row `start` on, counted from 0; row groups before it are not read.

    Args:
        path: the file.
        columns: those that are read, of which the file may lack some; all, if empty.
        start: number of the first row.

    Raises:
        DatasetError: the file is damaged or not a parquet file.
    """
    with _parquet(path) as file:
        wanted = [name for name in file.schema_arrow.names if not columns or name in columns]
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > start:
                batches = file.iter_batches(ROWS, row_groups=[group], columns=wanted)
                yield from _rows(path, batches, first, start)
            first += rows


def read_arrow(path: Path, columns: Sequence[str], start: int) -> Iterator[Numbered]:
    """(number, row) of an Arrow stream, as `datasets.save_to_disk` writes it; as `read_parquet`."""
    pa = _pyarrow()
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            wanted = [name for name in stream.schema.names if not columns or name in columns]
            pieces = (
                batch.select(wanted).slice(n, ROWS)
                for batch in stream
                for n in range(0, batch.num_rows, ROWS)
            )
            yield from _rows(path, pieces, 0, start)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read; it is not an Arrow stream: {error}") from error


def _rows(path: Path, batches: Iterator[Any], first: int, start: int) -> Iterator[Numbered]:
    try:
        for batch in batches:
            if first + batch.num_rows > start:
                yield from ((n, row) for n, row in enumerate(batch.to_pylist(), first) if n >= start)
            first += batch.num_rows
    except DataError:
        raise
    # pyarrow raises many kinds on a damaged file, here and below.
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read from row {first} on; it is damaged: {error}") from error


def _parquet(path: Path) -> Any:
    pa = _pyarrow()
    try:
        # A buffered stream: a column of a row group, with all its images, is never in memory whole.
        return pa.parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read; it is damaged or not a parquet file: {error}") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow
