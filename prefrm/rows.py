"""Rows of a CSV or JSONL file that people wrote, with their line numbers; what is wrong is named by line.

A byte order mark, any line ends, blank lines and rows of nothing but blank fields are read as they are meant.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrm.errors import DataError, DatasetError
from prefrm.records import SURROGATE

__all__ = ["read_rows", "read_text"]

Row = dict[str, Any]

LINE_BREAK = re.compile("\r\n|\r|\n")
BYTE_ORDER_MARK = "\ufeff"
SHOWN = 60  # characters of what was received that a message quotes
KINDS = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}


def read_rows(
    source: Path, columns: Sequence[str] = (), *, kind: str | None = None
) -> Iterator[tuple[int, Row | DataError]]:
    """(line, row) of a CSV file with a header, or of a JSONL file; or the line and why its row is none.

    A row has at least these columns, if only as None. A CSV row that spans lines has the number of its first.
    `kind` is ".csv" or ".jsonl", where the file's name does not tell.

    Raises:
        DatasetError: the file cannot be read, is of another format, lacks a column or has it twice, or breaks
            off, so that the rows from a line on are unknown.
    """
    kind = kind or source.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise DatasetError(f"{source} must be a .csv or a .jsonl file")
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            if kind == ".csv":
                yield from _csv_rows(source, file, columns)
            else:
                yield from _json_rows(file, columns)
    except UnicodeDecodeError as error:
        line = _undecodable_line(source)
        raise DatasetError(f"{source} line {line} is not UTF-8 text: {error.reason}") from error
    except DataError:
        raise
    # A NUL in the path is a ValueError.
    except (OSError, ValueError) as error:
        raise DatasetError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_text(row: Mapping[str, Any], column: str) -> str:
    """The stripped text of a column. Raises `DataError` if it is missing, empty or not valid text."""
    value = row[column]
    # JSON writes 1 and 2 as numbers; CSV knows text alone.
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value).removesuffix(".0")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{column} is missing or empty")
    if not isinstance(value, str):
        raise DataError(f"{column} must be text; received {KINDS[type(value)]}")
    if found := SURROGATE.search(value):
        raise DataError(
            f"{column} is not valid Unicode text: a lone surrogate, \\u{ord(found.group()):x}, "
            f"in {ascii(value)[:SHOWN]}"
        )
    if "\0" in value:
        raise DataError(f"{column} has a NUL character in it: {ascii(value)[:SHOWN]}")
    return value.strip()


def _csv_rows(
    source: Path, file: Iterable[str], columns: Sequence[str]
) -> Iterator[tuple[int, Row | DataError]]:
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    after = 0
    try:
        header = [name.strip() for name in next(filter(_has_text, reader), [])]
        _check_header(source, header, columns)
        after = reader.line_num
        for fields in reader:
            breaks = sum(len(LINE_BREAK.findall(field)) for field in fields)
            if _has_text(fields):
                yield reader.line_num - breaks, _csv_row(header, fields)
            after = reader.line_num
    except csv.Error as error:
        raise DatasetError(
            f"{source}: the row that starts at line {after + 1} cannot be read: {error}; close each quote, "
            "double a quote inside a quoted field, and put quotes around a field with line breaks"
        ) from error


def _has_text(fields: Sequence[str]) -> bool:
    return any(field.strip() for field in fields)


def _csv_row(header: Sequence[str], fields: Sequence[str]) -> Row | DataError:
    if len(fields) > len(header):
        return DataError("more fields than the header has; put quotes around text with commas")
    return dict(zip(header, [*fields, *[None] * (len(header) - len(fields))], strict=True))


def _check_header(source: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in header]:
        found = ", ".join(header) or "empty"
        raise DatasetError(f"{source} lacks the columns {', '.join(missing)}; its header is {found}")
    if twice := [name for name in columns if header.count(name) > 1]:
        raise DatasetError(f"{source} has the column {twice[0]} more than once; keep one of them")


def _json_rows(file: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[int, Row | DataError]]:
    for line, text in enumerate(file, 1):
        if text.strip():
            yield line, _json_row(text, columns)


def _json_row(text: str, columns: Sequence[str]) -> Row | DataError:
    text = text.strip().removeprefix(BYTE_ORDER_MARK)
    objects: list[list[str]] = []

    def read(pairs: list[tuple[str, Any]]) -> Row:
        objects.append([name for name, _ in pairs])
        return dict(pairs)

    try:
        # Python writes NaN for a missing value; JSON has none of these numbers.
        row = json.loads(text, object_pairs_hook=read, parse_constant=lambda name: None)
    # Deep nesting ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        return DataError(f"not JSON: {error}")
    if not isinstance(row, dict):
        return DataError(f"not a JSON object: {text[:SHOWN]}")
    # The outermost object is read last.
    if twice := [name for name in columns if objects[-1].count(name) > 1]:
        return DataError(f"it has {twice[0]} more than once; keep one of them")
    return dict.fromkeys(columns) | row


def _undecodable_line(source: Path) -> int:
    data = source.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1
