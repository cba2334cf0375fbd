"""Rows of a JSON file, whatever its size: a list of objects, an object of them, or one object a line.

    [{...}, {...}]                  each object is a row
    {"a": {...}, "b": {...}}        each is a row, with its key as `key`
    {"pairs": [{...}, {...}]}       each object of each list is a row
    {...}\\n{...}                    JSON Lines, whatever the file is called

Rows are numbered from 0, those of JSON Lines by their line. Only the element that is being read is in memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data_recipes.readers.part import Numbered, Row
from prefrm.errors import DatasetError
from prefrm.rows import read_rows

__all__ = ["read_json"]

PIECE = 2**20  # characters read at once
MAX_ELEMENT = 2**28  # characters of one element: beyond it, the file is not a list of rows
BLANK = " \t\r\n\ufeff"


def read_json(path: Path) -> Iterator[Numbered]:
    """(number, row) of a JSON file. Raises `DatasetError` if it is malformed or cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = _Text(file)
            if text.peek() == "[":
                yield from enumerate(map(_row, text.elements()))
                return
            if text.peek() != "{":
                raise ValueError("it is neither a list nor an object")
            if not _is_lines(path):
                yield from enumerate(_members(text))
                return
        yield from read_rows(path, (), kind=".jsonl")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is not a JSON file of rows: {error}") from error


def _is_lines(path: Path) -> bool:
    """Whether the first line is a whole object and another line follows it."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            json.loads(file.readline(MAX_ELEMENT))
        except ValueError:
            return False
        return bool(file.read(PIECE).strip())


def _members(text: "_Text") -> Iterator[Row]:
    for key, value in text.members():
        if isinstance(value, dict):
            yield {"key": key, **value}
        elif isinstance(value, list):
            yield from (one for one in value if isinstance(one, dict))


def _row(value: Any) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"an element is not an object: {str(value)[:60]!r}")
    return value


class _Text:
    """A JSON text that is decoded one element after another."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decoder = json.JSONDecoder(parse_constant=lambda name: None)

    def peek(self) -> str:
        """The next character that is not blank. Raises `ValueError` at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            self._more()

    def elements(self) -> Iterator[Any]:
        """Those of the list that starts here."""
        self._take("[")
        while self.peek() != "]":
            yield self._value()
            if self.peek() != "]":
                self._take(",")

    def members(self) -> Iterator[tuple[str, Any]]:
        """Those of the object that starts here."""
        self._take("{")
        while self.peek() != "}":
            key = self._value()
            self._take(":")
            yield key, self._value()
            if self.peek() != "}":
                self._take(",")

    def _take(self, wanted: str) -> None:
        if (found := self.peek()) != wanted:
            raise ValueError(f"{wanted!r} expected, found {found!r}")
        self._at += 1

    def _value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number may go on in the next piece.
                if end < len(self._text):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MAX_ELEMENT:
                    raise ValueError(f"an element has more than {MAX_ELEMENT} characters") from error
            self._more()

    def _more(self) -> None:
        # As much again as there is: an element of any length is decoded a few times only.
        piece = self._file.read(max(PIECE, len(self._text) - self._at))
        if not piece:
            raise ValueError("it ends too early")
        self._text, self._at = self._text[self._at :] + piece, 0
