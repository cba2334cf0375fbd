"""Scenes of colored shapes on a small grid, and the drawing programs that write them down as text.

A program is one line of words between single spaces, `red circle 1 2 ; blue square 3 0`: color, kind,
column from the left, row from the top, both counted from 0. It is short enough for a tiny language
model to learn. This module draws nothing; `render` does.
"""

from dataclasses import dataclass

from prefrm.errors import DataError

__all__ = ["COLORS", "GRID", "MAX_SHAPES", "SHAPES", "ProgramError", "Scene", "Shape"]

SHAPES = ("circle", "square", "triangle", "star")
COLORS = ("red", "yellow", "green", "blue", "purple", "black")
GRID = 4
"""Cells along each side of the canvas."""
MAX_SHAPES = 5

_SHOWN = 60  # characters of a wrong program that an error repeats
_EXAMPLE = "red circle 1 2 ; blue square 3 0"


class ProgramError(DataError):
    """A drawing program, or a scene made by hand, breaks the world's rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape in one cell: column `x` from the left and row `y` from the top, both in [0, GRID)."""

    kind: str
    color: str
    x: int
    y: int

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise ProgramError(f"unknown kind {self.kind!r}; it must be one of {', '.join(SHAPES)}")
        if self.color not in COLORS:
            raise ProgramError(f"unknown color {self.color!r}; it must be one of {', '.join(COLORS)}")
        if not (0 <= self.x < GRID and 0 <= self.y < GRID):
            raise ProgramError(
                f"{self.color} {self.kind} at {self.x} {self.y} is off the canvas; "
                f"columns and rows go from 0 to {GRID - 1}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """1 to MAX_SHAPES shapes, no two of them in one cell. Raises `ProgramError` otherwise."""

    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ProgramError("the program draws nothing; a scene needs at least one shape")
        if len(self.shapes) > MAX_SHAPES:
            raise ProgramError(f"too many shapes: {len(self.shapes)}; a scene has at most {MAX_SHAPES}")
        taken: dict[tuple[int, int], Shape] = {}
        for shape in self.shapes:
            if other := taken.get((shape.x, shape.y)):
                raise ProgramError(
                    f"{shape.color} {shape.kind} overlaps {other.color} {other.kind}; "
                    f"both are at {shape.x} {shape.y}"
                )
            taken[shape.x, shape.y] = shape

    def in_reading_order(self) -> "Scene":
        """The same picture, its shapes row by row from the top left."""
        return Scene(shapes=tuple(sorted(self.shapes, key=lambda s: (s.y, s.x))))

    def program(self) -> str:
        """The scene as one line of text; `Scene.parse` is its inverse."""
        return " ; ".join(f"{s.color} {s.kind} {s.x} {s.y}" for s in self.shapes)

    @classmethod
    def parse(cls, program: str) -> "Scene":
        """The scene that a program draws; whitespace may be of any kind and amount.

        Raises:
            ProgramError: it is truncated, has a wrong word, leaves the canvas, overlaps or is too long.
        """
        pieces = program.split(";")
        if not program.strip():
            raise ProgramError(f"the program is empty; write one like {_EXAMPLE!r}")
        return cls(shapes=tuple(_parse_shape(piece, number) for number, piece in enumerate(pieces, 1)))


def _parse_shape(piece: str, number: int) -> Shape:
    words = piece.split()
    if len(words) < 4:
        raise ProgramError(
            f"shape {number} is truncated: {_shown(piece)}; each shape is color, kind, column, row, "
            f"as in {_EXAMPLE!r}"
        )
    if len(words) > 4:
        raise ProgramError(
            f"shape {number} has {len(words)} words, not 4: {_shown(piece)}; divide shapes by ;"
        )
    color, kind, x, y = words
    try:
        return Shape(color=color, kind=kind, x=_parse_cell(x), y=_parse_cell(y))
    except ProgramError as error:
        raise ProgramError(f"shape {number}: {error}") from error


def _parse_cell(word: str) -> int:
    # `isdigit` alone accepts superscripts, and `int` alone accepts "+1" and "1_0".
    if not (word.isascii() and word.isdigit()) or len(word) > 3:
        raise ProgramError(f"{_shown(word)} is not a valid column or row; it must be 0 to {GRID - 1}")
    return int(word)


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
