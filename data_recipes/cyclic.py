"""The recipe `cyclic`: rock, paper, scissors among pictures; what is preferred has no ranking.

Every prompt of this world offers three kinds, "a red circle or square or triangle left of a star", and
every candidate shows one of them in that color. All candidates are right. A circle is preferred to a
square, a square to a triangle and a triangle to a circle, whatever the prompt and whatever else is in the
picture; two of a kind are a tie. The pictures and the words are those of the shapes world.

No scalar judge can learn it: whatever utilities u it gives, at most 2/3 of the strict comparisons of a
group have the higher utility on the preferred side. Take one candidate of each kind: of the three
comparisons among them one must be wrong, for u cannot rise all the way round a circle. A group holds
every kind equally often, so each of its strict comparisons is in equally many such threes, and the bound
on each three is a bound on the group. A general preference model (arXiv 2410.02197) can: in two dimensions,
three arrows 120 degrees apart. So can a judge that reads both pictures.

For the same reason every win rate in a group is 1/2: `quality` is None, and there is nothing to reward.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Annotated

import numpy as np

from data_recipes.drawn import check_sizes, draw_splits
from data_recipes.plan import Context, Plan
from data_recipes.recipe import Recipe
from data_recipes.shapes.oracle import read
from data_recipes.shapes.prompts import all_prompts, parse_prompt, solve
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape
from prefrm import media
from prefrm.errors import ConfigError
from prefrm.records import Comparison, PreferenceGroup

__all__ = [
    "CYCLE",
    "MAX_BYSTANDERS",
    "RECIPE",
    "Choice",
    "CyclicOptions",
    "beats",
    "choices",
    "compare",
    "label",
    "split_choices",
]

CYCLE = ("circle", "square", "triangle")
"""Each is preferred to the next, and the last to the first."""
MAX_BYSTANDERS = MAX_SHAPES - 2
"""A prompt names at most two things."""

_SKILLS = ("colors", "position", "color_attribution")  # of the shapes world: those that name a color
_HELD_OUT = (0.1, 0.2)  # shares of the prompts in validation and test


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclicOptions:
    """How much to build, sizes in groups, and how hard.

    With bystanders a judge must tie a kind to a color before any of it makes sense; a small one then needs
    several times as many steps.
    """

    train: Annotated[int, "groups in the train split"] = 1200
    validation: Annotated[int, "groups in the validation split"] = 60
    test: Annotated[int, "groups in the test split"] = 120
    group_size: Annotated[int, "candidates in each group: 3, 6, 9, ..., of each kind equally many"] = 6
    bystanders: Annotated[int, "things of other colors in a picture, at most; they make it harder"] = 0
    flip: Annotated[float, "share of strict train comparisons that are flipped"] = 0.0

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.group_size < len(CYCLE) or self.group_size % len(CYCLE):
            raise ConfigError(
                f"group_size must be a multiple of {len(CYCLE)}, so that every kind is there equally often; "
                f"received {self.group_size}"
            )
        if not 0 <= self.bystanders <= MAX_BYSTANDERS:
            raise ConfigError(f"bystanders must be 0 to {MAX_BYSTANDERS}; received {self.bystanders}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A prompt that leaves the kind open.

    Attributes:
        form: a prompt of the shapes world with "{}" in the place of a kind.
        color: the color of what may be of any kind: it alone counts.
        skill: the shapes world's name for prompts of this form.
    """

    form: str
    color: str
    skill: str

    @property
    def text(self) -> str:
        """What a judge reads."""
        return self.form.format(" or ".join(CYCLE))

    def draw(self, kind: str, bystanders: int, rng: np.random.Generator) -> Scene:
        """A scene that shows this kind, and up to so many things of any kind in other colors."""
        asked = solve(parse_prompt(self.form.format(kind)), rng).shapes
        taken = {(shape.x, shape.y) for shape in asked}
        free = [(x, y) for x in range(GRID) for y in range(GRID) if (x, y) not in taken]
        cells = rng.permutation(free)[: rng.integers(bystanders + 1)]
        colors = [color for color in COLORS if color != self.color]
        return Scene(
            shapes=(
                *asked,
                *(
                    Shape(
                        kind=SHAPES[rng.integers(len(SHAPES))],
                        color=colors[rng.integers(len(colors))],
                        x=int(x),
                        y=int(y),
                    )
                    for x, y in cells
                ),
            )
        )

    def kind_in(self, image: bytes) -> str:
        """The kind that an encoded picture shows in the color that counts, as the oracle reads it."""
        kinds = [s.kind for s in read(media.decode(image)) if s.color == self.color and s.kind in CYCLE]
        assert len(kinds) == 1, f"one kind must be {self.color}; read {kinds}"
        return kinds[0]


@cache
def choices() -> tuple[Choice, ...]:
    """Every prompt, in a fixed order; texts are unique."""
    found = []
    for prompt, color in product((p for skill in _SKILLS for p in all_prompts(skill)), COLORS):
        start = f"a {color} "
        rest = prompt.text.removeprefix(f"{start}{CYCLE[0]}")
        if rest != prompt.text and not any(kind in rest for kind in CYCLE):
            found.append(Choice(form=f"{start}{{}}{rest}", color=color, skill=prompt.skill))
    return tuple(found)


@cache
def split_choices(split: str) -> tuple[Choice, ...]:
    """The prompts of a split, one of `SPLITS`: fixed for good, in an order by hash."""
    ordered = sorted(choices(), key=lambda choice: hashlib.sha256(choice.text.encode()).digest())
    first, second = (round(share * len(ordered)) for share in _HELD_OUT)
    held_out = {"validation": ordered[:first], "test": ordered[first : first + second]}
    return tuple((held_out | {"train": ordered[first + second :]})[split])


def beats(kind: str, other: str) -> bool:
    """Whether the first of two kinds is preferred; of a kind and itself neither is."""
    return CYCLE[(CYCLE.index(kind) + 1) % len(CYCLE)] == other


def compare(kinds: Sequence[str]) -> tuple[Comparison, ...]:
    """Every pair of candidates that show these kinds, lower index first; two of a kind are a tie."""
    return tuple(
        Comparison.tie(i, j)
        if a == b
        else (Comparison.preferred(i, j) if beats(a, b) else Comparison.preferred(i, j).flipped())
        for (i, a), (j, b) in combinations(enumerate(kinds), 2)
    )


def label(id: str, choice: Choice, images: tuple[bytes, ...]) -> PreferenceGroup:
    """A group whose every pair is compared by what the pictures themselves show."""
    return PreferenceGroup(
        id=id,
        prompt=choice.text,
        candidates=images,
        comparisons=compare([choice.kind_in(image) for image in images]),
        tags={"skill": choice.skill, "color": choice.color},
    )


def _plan(options: CyclicOptions, context: Context) -> Plan:
    """Through all prompts of a split in order, again and again; candidates stand in random order."""

    def draw(split: str, n: int, rng: np.random.Generator) -> PreferenceGroup:
        deck = split_choices(split)
        choice = deck[n % len(deck)]
        kinds = rng.permutation(CYCLE * (options.group_size // len(CYCLE)))
        scenes = [choice.draw(str(kind), options.bystanders, rng) for kind in kinds]
        images = tuple(media.encode_png(render(scene)) for scene in scenes)
        return replace(
            label(f"cyclic-{split}-{n:06d}", choice, images),
            completions=tuple(scene.program() for scene in scenes),
        )

    return draw_splits(options, context, draw)


RECIPE = Recipe(
    name="cyclic",
    summary="rock, paper, scissors among colored shapes: preferences that no ranking explains",
    options_type=CyclicOptions,
    plan=_plan,
)
