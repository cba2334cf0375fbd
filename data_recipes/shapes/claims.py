"""What a prompt claims about a picture, each claim decidable on the list of things seen in it.

A claim knows nothing of text or pixels: `prompts` writes claims out in English, `oracle` reads pictures.
Claims that mean the same are equal (`a right of b` is written `b left of a`), so prompts can be
compared by meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from data_recipes.shapes.scene import GRID, Scene

__all__ = [
    "CLEARLY",
    "Axis",
    "Before",
    "Claim",
    "Count",
    "Exists",
    "Noun",
    "Only",
    "Seen",
    "Within",
    "at",
    "seen_in",
]

Axis: TypeAlias = Literal["x", "y"]

CLEARLY = 0.6 / GRID
"""Centers this far apart, of the canvas, are clearly in different columns or rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One thing in a picture; `x` (from the left) and `y` (from the top) of its center are in [0, 1]."""

    kind: str
    color: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A kind, of a color or of any."""

    kind: str
    color: str | None = None

    def among(self, seen: Sequence[Seen]) -> list[Seen]:
        """The things that this noun names."""
        return [s for s in seen if s.kind == self.kind and self.color in (None, s.color)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists:
    """At least one such thing."""

    noun: Noun

    def holds(self, seen: Sequence[Seen]) -> bool:
        return bool(self.noun.among(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Exactly `n` such things."""

    noun: Noun
    n: int

    def holds(self, seen: Sequence[Seen]) -> bool:
        return len(self.noun.among(seen)) == self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Exactly `n` things in all: a prompt of this world names everything in its picture."""

    n: int

    def holds(self, seen: Sequence[Seen]) -> bool:
        return len(seen) == self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """`first` is left of `second` (axis x) or above it (axis y), by at least a cell."""

    first: Noun
    second: Noun
    axis: Axis

    def holds(self, seen: Sequence[Seen]) -> bool:
        return any(
            at(b, self.axis) - at(a, self.axis) > CLEARLY
            for a in self.first.among(seen)
            for b in self.second.among(seen)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Such a thing lies in the low half (left or top) or the high half (right or bottom) of the canvas."""

    noun: Noun
    axis: Axis
    low: bool

    def holds(self, seen: Sequence[Seen]) -> bool:
        return any((at(s, self.axis) < 0.5) == self.low for s in self.noun.among(seen))


Claim: TypeAlias = Exists | Count | Only | Before | Within


def seen_in(scene: Scene) -> tuple[Seen, ...]:
    """What a perfect reader sees in the scene's picture."""
    return tuple(
        Seen(kind=s.kind, color=s.color, x=(s.x + 0.5) / GRID, y=(s.y + 0.5) / GRID) for s in scene.shapes
    )


def at(seen: Seen, axis: Axis) -> float:
    """Its center along an axis."""
    return seen.x if axis == "x" else seen.y
