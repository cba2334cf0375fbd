"""Reads a log of groups while a run writes it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefrm.errors import DatasetError
from prefrm.group_log.rows import CONTENT, ENTRY, LoggedEntry, entry_of_row
from prefrm.group_log.writer import LogFile, log_files
from prefrm.records import group_of_columns, import_pyarrow
from prefrm.winmatrix import Group

__all__ = ["GroupLogReader"]

NANO = 10**9


class GroupLogReader:
    """The groups of a log, for as long as they are there; each file is read once but for its content.

    Args:
        folder: of the log; it need not exist yet.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        import_pyarrow()
        self.folder = Path(folder)
        self._read: dict[Path, list[LoggedEntry]] = {}

    def entries(self) -> list[LoggedEntry]:
        """The groups that are there now, the newest file first.

        Raises:
            DatasetError: a file is damaged or of another format; names it.
        """
        found: dict[Path, list[LoggedEntry]] = {}
        for file in reversed(log_files(self.folder)):
            # The run may delete a file between the listing and the reading.
            with contextlib.suppress(FileNotFoundError):
                found[file.path] = self._read.get(file.path) or self._entries(file)
        self._read = found
        return [entry for entries in found.values() for entry in entries]

    def group(self, id: str) -> Group:
        """The group of an entry, with its candidates and context.

        Raises:
            DatasetError: it is no longer there or never was, or its file is damaged.
        """
        stem, _, row = id.rpartition(".")
        path = self.folder / f"{stem}.parquet"
        gone = DatasetError(f"the log {self.folder} has no group {id!r}; a run keeps those of its last steps")
        if (file := LogFile.of(path)) is None or not row.isdecimal() or int(row) >= file.groups:
            raise gone
        try:
            (columns,) = _rows(path, CONTENT, int(row))
            return group_of_columns(columns)
        except FileNotFoundError as error:
            raise gone from error
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from error

    def _entries(self, file: LogFile) -> list[LoggedEntry]:
        return [
            entry_of_row(row, id=f"{file.path.stem}.{n}", time=file.time_ns / NANO)
            for n, row in enumerate(_rows(file.path, ENTRY))
        ]


def _rows(path: Path, columns: Sequence[str], row: int | None = None) -> list[dict[str, Any]]:
    """These columns of all rows, or of one."""
    pa, pq = import_pyarrow()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            wanted = [*columns]
            table = file.read(wanted) if row is None else file.read_row_group(row, wanted)
            found: list[dict[str, Any]] = table.to_pylist()
            return found
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is damaged or not a log of groups: {error}") from error
