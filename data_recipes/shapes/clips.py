"""The world of clips: a prompt says how a shape moves; candidates are short videos.

A clip is the same shapes in two scenes: from one to the other each moves in a straight line, or stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from data_recipes.shapes.candidates import free_cell, other
from data_recipes.shapes.claims import CLEARLY, Axis, Claim, Exists, Noun, Only, Seen, at, seen_in
from data_recipes.shapes.definition import Drawn, World
from data_recipes.shapes.oracle import read
from data_recipes.shapes.prompt_set import PromptSet
from data_recipes.shapes.prompts import indefinite
from data_recipes.shapes.recipe import recipe_of
from data_recipes.shapes.render import CELL, render_at
from data_recipes.shapes.scene import COLORS, GRID, SHAPES, Scene, Shape
from prefrm.video import FrameSampling, encode_video, read_frames

__all__ = [
    "DIRECTIONS",
    "FRAMES",
    "FRAME_RATE",
    "RECIPE",
    "WORLD",
    "Clip",
    "Motion",
    "Moves",
    "Stays",
    "Throughout",
    "encode_clip",
    "frames",
    "read_clip",
    "track",
]

FRAMES = 8
FRAME_RATE = 4
"""Frames a second."""
DIRECTIONS: dict[str, tuple[Axis, bool]] = {
    "left": ("x", True),
    "right": ("x", False),
    "up": ("y", True),
    "down": ("y", False),
}
"""The axis of each direction, and whether it leads to a lower coordinate."""

_DISTANCES = (2, 3)  # cells that a shape moves
_FAULT_COUNTS = (0.25, 0.4, 0.35)  # probabilities that a candidate has 0, 1 or 2 faults

Tracked: TypeAlias = tuple[tuple[Seen, ...], ...]
"""The things in each frame that is looked at, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughout:
    """A claim about a picture that holds from the first frame to the last."""

    claim: Claim

    def holds(self, tracked: Tracked) -> bool:
        return all(self.claim.holds(seen) for seen in tracked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Such a thing is clearly elsewhere in the end; in a direction, or in any."""

    noun: Noun
    direction: str = ""

    def holds(self, tracked: Tracked) -> bool:
        return any(
            self._along(start, end)
            for start in self.noun.among(tracked[0])
            for end in self.noun.among(tracked[-1])
        )

    def _along(self, start: Seen, end: Seen) -> bool:
        if not self.direction:
            return any(abs(at(end, axis) - at(start, axis)) > CLEARLY for axis in ("x", "y"))
        axis, low = DIRECTIONS[self.direction]
        return (at(end, axis) - at(start, axis)) * (-1 if low else 1) > CLEARLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """Such a thing is there, and ends where it started."""

    noun: Noun

    def holds(self, tracked: Tracked) -> bool:
        return bool(self.noun.among(tracked[0])) and not Moves(noun=self.noun).holds(tracked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """A prompt: one thing that moves, and perhaps another one that stays."""

    mover: Noun
    direction: str
    beside: Noun | None = None

    @property
    def skill(self) -> str:
        """ "moves" or "moves_beside"."""
        return "moves_beside" if self.beside else "moves"

    @property
    def text(self) -> str:
        """The prompt in English."""
        beside = f" and {indefinite(self.beside)} stays" if self.beside else ""
        return f"{indefinite(self.mover)} moves {self.direction}{beside}"

    @property
    def meaning(self) -> str:
        """No two prompts mean the same."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The same shapes, in the same order, at the start and at the end."""

    start: Scene
    end: Scene

    def program(self) -> str:
        """Both scenes as a line of text."""
        return f"{self.start.program()} > {self.end.program()}"


def frames(clip: Clip) -> list[Image.Image]:
    """FRAMES pictures of CANVAS x CANVAS pixels, the first of the start and the last of the end."""
    return [_frame(clip, n / (FRAMES - 1)) for n in range(FRAMES)]


def _frame(clip: Clip, time: float) -> Image.Image:
    return render_at(
        (a, round((a.x + (b.x - a.x) * time) * CELL), round((a.y + (b.y - a.y) * time) * CELL))
        for a, b in zip(clip.start.shapes, clip.end.shapes, strict=True)
    )


def encode_clip(clip: Clip) -> bytes:
    """The clip as an MP4 file; equal clips give equal bytes."""
    return encode_video(frames(clip), FRAME_RATE)


def read_clip(data: bytes) -> Tracked:
    """The things that the oracle sees in the first and the last frame of an encoded video.

    Raises:
        MediaError: it cannot be read.
    """
    images = read_frames(data, FrameSampling(count=2)).images
    return read(images[0]), read(images[-1])


def track(clip: Clip) -> Tracked:
    """The same as a perfect reader has it."""
    return seen_in(clip.start), seen_in(clip.end)


def _claims(motion: Motion, criterion: str, seen: Sequence[Seen]) -> list[Any]:
    """The look of each thing, how the mover moves, that the other one stays, and nothing else.

    Motion is claimed of the kind alone: a wrong color is one fault and not three.
    """
    kind = Noun(kind=motion.mover.kind)
    looks = [noun for each in (motion.mover, motion.beside) if each for noun in (Noun(kind=each.kind), each)]
    return [
        *(Throughout(claim=Exists(noun=noun)) for noun in dict.fromkeys(looks)),
        Moves(noun=kind),
        Moves(noun=kind, direction=motion.direction),
        *([Stays(noun=Noun(kind=motion.beside.kind))] if motion.beside else ()),
        Throughout(claim=Only(n=2 if motion.beside else 1)),
    ]


def _solve(motion: Motion, rng: np.random.Generator) -> Clip:
    """A clip in which every claim holds; what the prompt leaves open is drawn."""
    mover = _shape(motion.mover, rng)
    start, end = _run(mover, motion.direction, rng)
    clip = Clip(start=Scene(shapes=(start,)), end=Scene(shapes=(end,)))
    return _with(clip, _shape(motion.beside, rng), rng) if motion.beside else clip


def _shape(noun: Noun, rng: np.random.Generator) -> Shape:
    return Shape(kind=noun.kind, color=noun.color or COLORS[rng.integers(len(COLORS))], x=0, y=0)


def _run(shape: Shape, direction: str, rng: np.random.Generator) -> tuple[Shape, Shape]:
    """The shape at the start and at the end of a movement in that direction."""
    distance = int(rng.integers(_DISTANCES[0], _DISTANCES[1] + 1))
    near, across = int(rng.integers(GRID - distance)), int(rng.integers(GRID))
    axis, low = DIRECTIONS[direction]
    places = (near + distance, near) if low else (near, near + distance)
    first, last = ((p, across) if axis == "x" else (across, p) for p in places)
    return replace(shape, x=first[0], y=first[1]), replace(shape, x=last[0], y=last[1])


def _with(clip: Clip, shape: Shape, rng: np.random.Generator) -> Clip:
    """The clip with one more shape that stays, away from where the others pass."""
    while True:
        x, y = free_cell(clip.start, rng)
        if not any(_passes(a, b, x, y) for a, b in zip(clip.start.shapes, clip.end.shapes, strict=True)):
            still = replace(shape, x=x, y=y)
            return Clip(
                start=Scene(shapes=(*clip.start.shapes, still)), end=Scene(shapes=(*clip.end.shapes, still))
            )


def _passes(a: Shape, b: Shape, x: int, y: int) -> bool:
    """Whether a cell is on or between two cells of a row or a column."""
    return min(a.x, b.x) <= x <= max(a.x, b.x) and min(a.y, b.y) <= y <= max(a.y, b.y)


def _draw_clip(motion: Motion, rng: np.random.Generator) -> Clip:
    """A clip from perfect to mostly wrong."""
    faults = int(rng.choice(len(_FAULT_COUNTS), p=_FAULT_COUNTS))
    chosen = rng.permutation(("motion", "motion", "look", "look", "extra"))[:faults]
    wrong = motion
    still = False
    for fault in chosen:
        if fault == "look":
            wrong = _wrong_look(wrong, rng)
        elif fault == "motion" and rng.random() < 0.4:
            still = True
        elif fault == "motion":
            wrong = replace(wrong, direction=other(tuple(DIRECTIONS), motion.direction, rng))
    clip = _solve(wrong, rng)
    if still:
        clip = Clip(start=clip.start, end=clip.start)
    if "extra" in chosen:
        clip = _with(clip, _shape(Noun(kind=SHAPES[rng.integers(len(SHAPES))]), rng), rng)
    return clip


def _wrong_look(motion: Motion, rng: np.random.Generator) -> Motion:
    """Another color or kind of one of the things."""
    if motion.beside and rng.random() < 0.4:
        return replace(motion, beside=_another(motion.beside, rng))
    return replace(motion, mover=_another(motion.mover, rng))


def _another(noun: Noun, rng: np.random.Generator) -> Noun:
    if rng.random() < 0.6 and noun.color:
        return replace(noun, color=other(COLORS, noun.color, rng))
    return replace(noun, kind=other(SHAPES, noun.kind, rng))


def _draw(motion: Motion, k: int, rng: np.random.Generator) -> Drawn:
    return Drawn(candidates=tuple(_draw_clip(motion, rng) for _ in range(k)))


def _moves() -> Iterator[Motion]:
    for kind, color, direction in product(SHAPES, (None, *COLORS), DIRECTIONS):
        yield Motion(mover=Noun(kind=kind, color=color), direction=direction)


def _moves_beside() -> Iterator[Motion]:
    for kinds, colors, direction in product(permutations(SHAPES, 2), permutations(COLORS, 2), DIRECTIONS):
        mover, beside = (Noun(kind=k, color=c) for k, c in zip(kinds, colors, strict=True))
        yield Motion(mover=mover, direction=direction, beside=beside)


WORLD = World(
    name="shapes-clips",
    summary="short videos of colored shapes that move, oracle labels, nothing to download",
    prompts=PromptSet("shapes-clips", {"moves": _moves, "moves_beside": _moves_beside}),
    draw=_draw,
    claims=_claims,
    see=track,
    encode=encode_clip,
    read=read_clip,
    note=Clip.program,
)
RECIPE = recipe_of(WORLD)
