"""The prompts of the world: six skills in the manner of GenEval (arXiv 2310.11513), in short English.

Every prompt is enumerated, so that prompts can be divided between splits, and is a conjunction of
claims, so that a picture can be partly right. A prompt names everything in its picture: "nothing
else" is always one of its claims. This module judges no picture; `oracle` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from data_recipes.shapes.claims import Axis, Before, Claim, Count, Exists, Noun, Only, Within, seen_in
from data_recipes.shapes.prompt_set import PromptError, PromptSet
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape

__all__ = [
    "PROMPTS",
    "SIDES",
    "SKILLS",
    "Prompt",
    "PromptError",
    "all_prompts",
    "at_the",
    "caption",
    "counted",
    "deck",
    "indefinite",
    "named",
    "parse_prompt",
    "sample_prompt",
    "solve",
    "split_prompts",
]

_NUMBERS = {2: "two", 3: "three", 4: "four"}
SIDES: dict[str, tuple[Axis, bool]] = {
    "left": ("x", True),
    "right": ("x", False),
    "top": ("y", True),
    "bottom": ("y", False),
}
_CORNERS = tuple(f"{v} {h}" for v in ("top", "bottom") for h in ("left", "right"))
_RELATIONS: dict[str, tuple[Axis, bool]] = {
    "left of": ("x", True),
    "right of": ("x", False),
    "above": ("y", True),
    "below": ("y", False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text, the skill that it tests and what it claims about a picture."""

    text: str
    skill: str
    claims: tuple[Claim, ...]

    @property
    def meaning(self) -> str:
        """Equal for prompts that claim the same in another order or wording."""
        return " & ".join(sorted(map(str, self.claims)))


def solve(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """A scene in which every claim holds; colors and cells that the prompt leaves open are drawn."""
    nouns = named(prompt)
    kinds_colors = [(noun.kind, noun.color or COLORS[rng.integers(len(COLORS))]) for noun in nouns]
    # One layout in four suits the narrowest prompt (a corner), so this ends after a few draws.
    while True:
        cells = rng.choice(GRID * GRID, size=len(nouns), replace=False)
        scene = Scene(
            shapes=tuple(
                Shape(kind=kind, color=color, x=int(cell) % GRID, y=int(cell) // GRID)
                for (kind, color), cell in zip(kinds_colors, cells, strict=True)
            )
        )
        if all(claim.holds(seen_in(scene)) for claim in prompt.claims):
            return scene


def caption(scene: Scene) -> str:
    """Every shape with its color, kind and quarter of the canvas, row by row from the top left.

    For example "red circle top left ; blue square bottom right". `scene.program()` is the exact form.
    """
    return " ; ".join(f"{s.color} {s.kind} {_quarter(s)}" for s in scene.in_reading_order().shapes)


def _quarter(shape: Shape) -> str:
    vertical = "top" if shape.y < GRID // 2 else "bottom"
    return f"{vertical} {'left' if shape.x < GRID // 2 else 'right'}"


def named(prompt: Prompt) -> list[Noun]:
    """The things that the prompt names, one entry each, in the order of its text."""
    counts = {
        claim.noun: claim.n if isinstance(claim, Count) else 1
        for claim in prompt.claims
        if isinstance(claim, Exists | Count)
    }
    precise = {noun.kind for noun in counts if noun.color}
    return [noun for noun, n in counts.items() if noun.color or noun.kind not in precise for _ in range(n)]


def _single_object() -> Iterator[Prompt]:
    for kind, place in product(SHAPES, ("", *SIDES, *_CORNERS)):
        noun = Noun(kind=kind)
        claims = (Exists(noun=noun), *_within(noun, place), Only(n=1))
        yield Prompt(text=f"a single {kind}{at_the(place)}", skill="single_object", claims=claims)


def _colors() -> Iterator[Prompt]:
    for color, kind, place in product(COLORS, SHAPES, ("", *SIDES)):
        noun = Noun(kind=kind, color=color)
        claims = (Exists(noun=Noun(kind=kind)), Exists(noun=noun), *_within(noun, place), Only(n=1))
        yield Prompt(text=f"a {color} {kind}{at_the(place)}", skill="colors", claims=claims)


def _two_objects() -> Iterator[Prompt]:
    colors = [(None, None), *((c, None) for c in COLORS), *((None, c) for c in COLORS)]
    for (kind_1, kind_2), (color_1, color_2) in product(permutations(SHAPES, 2), colors):
        first, second = Noun(kind=kind_1, color=color_1), Noun(kind=kind_2, color=color_2)
        claims = (*_exists(first), *_exists(second), Only(n=2))
        yield Prompt(text=f"{indefinite(first)} and {indefinite(second)}", skill="two_objects", claims=claims)


def _counting() -> Iterator[Prompt]:
    for n, kind, color in product(_NUMBERS, SHAPES, (None, *COLORS)):
        noun, any_color = Noun(kind=kind, color=color), Noun(kind=kind)
        colored = (Count(noun=noun, n=n),) if color else ()
        claims = (Exists(noun=any_color), Count(noun=any_color, n=n), *colored, Only(n=n))
        yield Prompt(text=counted(noun, n), skill="counting", claims=claims)
    for (kind_1, kind_2), n, m in product(permutations(SHAPES, 2), (1, *_NUMBERS), (1, *_NUMBERS)):
        if 2 < n + m <= MAX_SHAPES:
            first, second = Noun(kind=kind_1), Noun(kind=kind_2)
            claims = (Count(noun=first, n=n), Count(noun=second, n=m), Only(n=n + m))
            yield Prompt(
                text=f"{counted(first, n)} and {counted(second, m)}", skill="counting", claims=claims
            )


def _position() -> Iterator[Prompt]:
    for (kind_1, kind_2), color, relation in product(permutations(SHAPES, 2), (None, *COLORS), _RELATIONS):
        first, second = Noun(kind=kind_1, color=color), Noun(kind=kind_2)
        axis, forward = _RELATIONS[relation]
        a, b = (first, second) if forward else (second, first)
        where = Before(first=a, second=b, axis=axis)
        claims = (Exists(noun=first), Exists(noun=second), where, Only(n=2))
        yield Prompt(
            text=f"{indefinite(first)} {relation} {indefinite(second)}", skill="position", claims=claims
        )


def _color_attribution() -> Iterator[Prompt]:
    for kinds, colors in product(permutations(SHAPES, 2), permutations(COLORS, 2)):
        first, second = (Noun(kind=k, color=c) for k, c in zip(kinds, colors, strict=True))
        claims = (*_exists(first), *_exists(second), Only(n=2))
        yield Prompt(
            text=f"{indefinite(first)} and {indefinite(second)}", skill="color_attribution", claims=claims
        )


def _exists(noun: Noun) -> tuple[Claim, ...]:
    """One claim for the kind and, where a color is named, one more for the kind in that color."""
    return tuple(dict.fromkeys((Exists(noun=Noun(kind=noun.kind)), Exists(noun=noun))))


def _within(noun: Noun, place: str) -> tuple[Claim, ...]:
    """A claim for each side that a place names: "top left" names two."""
    return tuple(
        Within(noun=noun, axis=axis, low=low) for axis, low in (SIDES[word] for word in place.split())
    )


def at_the(place: str) -> str:
    """A place in the canvas as it follows a noun; nothing for no place."""
    return f" at the {place}" if place else ""


def indefinite(noun: Noun) -> str:
    """The noun with its article: "a red circle"."""
    return f"a {noun.color} {noun.kind}" if noun.color else f"a {noun.kind}"


def counted(noun: Noun, n: int) -> str:
    """1 to 4 of a noun: "two red circles"."""
    if n == 1:
        return indefinite(noun)
    words = (_NUMBERS[n], *filter(None, (noun.color,)), f"{noun.kind}s")
    return " ".join(words)


PROMPTS = PromptSet(
    "shapes",
    {
        "single_object": _single_object,
        "two_objects": _two_objects,
        "counting": _counting,
        "colors": _colors,
        "position": _position,
        "color_attribution": _color_attribution,
    },
)
"""The world's prompts by skill; what follows are its methods under the names that say what they are of."""
SKILLS = PROMPTS.skills
all_prompts = PROMPTS.all
sample_prompt = PROMPTS.sample
parse_prompt = PROMPTS.parse
split_prompts = PROMPTS.split
deck = PROMPTS.deck
