"""One file of a source, read row by row, and the split that its name tells."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from prefrm.errors import DataError

__all__ = [
    "SPLIT_NAMES",
    "Numbered",
    "Part",
    "Row",
    "in_split",
    "is_hidden",
    "named_split",
    "report_unread",
    "stamp",
]

logger = logging.getLogger(__name__)

NAMED = 3  # files that a message names; the rest are counted
NOT_DATA = "__MACOSX"  # what macOS adds to a zip

Row: TypeAlias = dict[str, Any]
Numbered: TypeAlias = tuple[int, Row | DataError]
"""The line or the number of a row, and the row, or why there is none."""

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
}
"""The split of prefrm by the name that a file, a folder or a split of the Hub has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a source, or one shard of a dataset on the Hub.

    Attributes:
        name: names its rows in messages and ids, with the number of the row: "train.json:7".
        read: the rows from the n-th on (counted from 0), in an order that never changes.
        split: the source's own, one of `prefrm.records.SPLITS`; None if it has none.
        folder: the folder that paths in its rows are relative to; None if it is not on this disk.
        total: number of rows, if it is known without reading them.
        columns: all that the file has, where its rows may have fewer; empty if a row shows them.
        stamp: changes if the content does.
    """

    name: str
    read: Callable[[int], Iterator[Numbered]]
    split: str | None = None
    folder: Path | None = None
    total: int | None = None
    columns: Sequence[str] = ()
    stamp: str = ""


def named_split(path: str, names: Mapping[str, str] = SPLIT_NAMES) -> str | None:
    """The split by a file's name up to the first "-" or ".", or else by that of a folder that it is in."""
    for part in reversed(path.replace("\\", "/").split("/")):
        if (word := re.split(r"[-.]", part)[0]) in names:
            return names[word]
    return None


def in_split(parts: Sequence[Part], split: str) -> list[Part]:
    """The parts as those of one split, whatever their names: a benchmark is not trained on."""
    return [replace(part, split=split) for part in parts]


def report_unread(source: str, kind: str, names: Sequence[str]) -> None:
    """Warn of the files or splits of a source that are not read, if there are any."""
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        logger.warning(
            "%s: %s skipped, because their names contain no split that is read: %s%s",
            source,
            kind,
            ", ".join(names[:NAMED]),
            more,
        )


def is_hidden(path: Path) -> bool:
    """Whether a path inside a source leads to what a system or a library keeps there for itself."""
    return any(part.startswith(".") or part == NOT_DATA for part in path.parts)


def stamp(path: Path) -> str:
    """Size and time of change of a file."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"
