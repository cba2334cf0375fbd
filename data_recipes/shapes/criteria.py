"""The world of two criteria: pictures right in their colors and wrong in their layout, or the reverse.

A prompt names two things, the color of each and where one is of the other. By "colors" a candidate is judged
on the first alone, by "layout" on the second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Annotated

import numpy as np

from data_recipes.shapes.candidates import other
from data_recipes.shapes.claims import Axis, Before, Claim, Exists, Noun, Seen
from data_recipes.shapes.definition import Drawn, World
from data_recipes.shapes.prompt_set import PromptSet
from data_recipes.shapes.prompts import indefinite
from data_recipes.shapes.recipe import ShapesOptions, recipe_of
from data_recipes.shapes.scene import COLORS, GRID, SHAPES, Scene, Shape

__all__ = ["CRITERIA", "RECIPE", "WORLD", "CriteriaOptions", "Placed"]

CRITERIA = COLORS_CRITERION, LAYOUT_CRITERION = ("colors", "layout")
_AXES: tuple[Axis, ...] = ("x", "y")
_VERTICAL, _HORIZONTAL = ("above", "below"), ("left of", "right of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A prompt: two things of different kinds, and where the first is of the second."""

    first: Noun
    second: Noun
    vertical: str
    horizontal: str

    skill = "placed"

    @property
    def text(self) -> str:
        """The prompt in English."""
        return f"{indefinite(self.first)} {self.vertical} and {self.horizontal} {indefinite(self.second)}"

    @property
    def meaning(self) -> str:
        """The same for the prompt turned around."""
        return " & ".join(sorted(str(claim) for by in CRITERIA for claim in _claims(self, by, ())))

    @property
    def signs(self) -> tuple[int, int]:
        """-1 where the first thing has the lower column or row, or else 1."""
        return 1 - 2 * (self.horizontal == "left of"), 1 - 2 * (self.vertical == "above")


@dataclass(frozen=True, slots=True, kw_only=True)
class CriteriaOptions(ShapesOptions):
    """The same; 0, 1 or 2 colors are right, so three candidates at most all differ."""

    group_size: Annotated[int, "candidates in each group"] = 3


def _claims(prompt: Placed, criterion: str, seen: Sequence[Seen]) -> list[Claim]:
    if criterion == COLORS_CRITERION:
        return [Exists(noun=noun) for noun in (prompt.first, prompt.second)]
    kinds = [Noun(kind=noun.kind) for noun in (prompt.first, prompt.second)]
    ordered = [kinds[::-sign] for sign in prompt.signs]
    return [Before(first=a, second=b, axis=axis) for axis, (a, b) in zip(_AXES, ordered, strict=True)]


def _draw(prompt: Placed, k: int, rng: np.random.Generator) -> Drawn:
    """Candidates with different numbers of wrong colors and wrong relations; in two of three groups, the more
    of one the fewer of the other."""
    colors, relations = _levels(k, rng), _levels(k, rng)
    if rng.random() < 2 / 3:
        relations.reverse()
    scenes = [_with_wrong(prompt, *wrong, rng) for wrong in zip(colors, relations, strict=True)]
    return Drawn(candidates=tuple(scenes[n] for n in rng.permutation(k)))


def _levels(k: int, rng: np.random.Generator) -> list[int]:
    """K numbers from 0 to 2, in ascending order, with as few repetitions as possible."""
    every = [int(n) for _ in range(k // 3 + 1) for n in rng.permutation(3)]
    return sorted(every[:k])


def _with_wrong(prompt: Placed, colors: int, relations: int, rng: np.random.Generator) -> Scene:
    """A scene with that many wrong colors and wrong relations."""
    recolored, flipped = (rng.permutation(2) < n for n in (colors, relations))
    places = []
    for sign, flip in zip(prompt.signs, flipped, strict=True):
        low, high = sorted(int(n) for n in rng.choice(GRID, size=2, replace=False))
        places.append((low, high)[:: 1 if (sign < 0) != flip else -1])
    shapes = []
    for n, noun in enumerate((prompt.first, prompt.second)):
        assert noun.color is not None
        color = other(COLORS, noun.color, rng) if recolored[n] else noun.color
        shapes.append(Shape(kind=noun.kind, color=color, x=places[0][n], y=places[1][n]))
    return Scene(shapes=tuple(shapes))


def _list() -> Iterator[Placed]:
    for kinds, colors, vertical, horizontal in product(
        permutations(SHAPES, 2), permutations(COLORS, 2), _VERTICAL, _HORIZONTAL
    ):
        first, second = (Noun(kind=kind, color=color) for kind, color in zip(kinds, colors, strict=True))
        yield Placed(first=first, second=second, vertical=vertical, horizontal=horizontal)


WORLD = World(
    name="shapes-criteria",
    summary="pictures of colored shapes under two criteria that disagree, oracle labels, nothing to download",
    prompts=PromptSet("shapes-criteria", {Placed.skill: _list}),
    draw=_draw,
    claims=_claims,
    criteria=CRITERIA,
)
RECIPE = recipe_of(WORLD, CriteriaOptions)
