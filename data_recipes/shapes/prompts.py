"""The prompts of the world: six skills in the manner of GenEval (arXiv 2310.11513), in short English.

Every prompt is enumerated, so that prompts can be divided between splits, and is a conjunction of
claims, so that a picture can be partly right. A prompt names everything in its picture: "nothing
else" is always one of its claims. This module judges no picture; `oracle` does.
"""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np

from data_recipes.shapes.claims import Axis, Before, Claim, Count, Exists, Noun, Only, Within, seen_in
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape
from prefrm.errors import DataError
from prefrm.records import SPLITS

__all__ = [
    "SKILLS",
    "Prompt",
    "PromptError",
    "all_prompts",
    "caption",
    "deck",
    "named",
    "parse_prompt",
    "sample_prompt",
    "solve",
    "split_prompts",
]

SKILLS = ("single_object", "two_objects", "counting", "colors", "position", "color_attribution")
_HELD_OUT = {"validation": 0.1, "test": 0.2}  # shares of each skill's meanings

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_SIDES: dict[str, tuple[Axis, bool]] = {
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


class PromptError(DataError):
    """A text is not a prompt of this world."""


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


@cache
def all_prompts(skill: str | None = None) -> tuple[Prompt, ...]:
    """Every prompt of a skill, or of the world, in a fixed order; texts are unique."""
    if skill is None:
        return tuple(prompt for each in SKILLS for prompt in all_prompts(each))
    if skill not in _ENUMERATE:
        raise PromptError(f"unknown skill {skill!r}; it must be one of {', '.join(SKILLS)}")
    return tuple(_ENUMERATE[skill]())


def sample_prompt(rng: np.random.Generator, skill: str) -> Prompt:
    """A prompt of the skill, each as likely as the others."""
    prompts = all_prompts(skill)
    return prompts[int(rng.integers(len(prompts)))]


def parse_prompt(text: str) -> Prompt:
    """The prompt that a text is; case, extra spaces and a final period do not matter.

    Raises:
        PromptError: it is not a prompt of this world; the nearest one is named.
    """
    plain = " ".join(text.lower().split()).removesuffix(".")
    if prompt := _by_text().get(plain):
        return prompt
    nearest = difflib.get_close_matches(plain[:100], _by_text(), n=1, cutoff=0.0)[0]
    raise PromptError(f"{text[:100]!r} is not a prompt of the shapes world; the nearest one is {nearest!r}")


@cache
def split_prompts(split: str) -> tuple[Prompt, ...]:
    """The prompts of "train", "validation" or "test": fixed for good, and the same share of every skill.

    Prompts of one meaning share a split, so a held-out prompt is not a trained one turned around.
    """
    if split not in ("train", *_HELD_OUT):
        raise PromptError(f"unknown split {split!r}; it must be train, {' or '.join(_HELD_OUT)}")
    return tuple(prompt for prompt in all_prompts() if _split_of()[prompt.meaning] == split)


def deck(split: str, skill: str, seed: int) -> list[Prompt]:
    """The skill's prompts of a split, in an order that the seed shuffles."""
    prompts = [prompt for prompt in split_prompts(split) if prompt.skill == skill]
    np.random.default_rng([seed, SPLITS.index(split)]).shuffle(prompts)
    return prompts


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


@cache
def _by_text() -> dict[str, Prompt]:
    return {prompt.text: prompt for prompt in all_prompts()}


@cache
def _split_of() -> dict[str, str]:
    """meaning -> split, stratified by skill; the order within a skill is by hash."""
    table: dict[str, str] = {}
    for skill in SKILLS:
        meanings = {prompt.meaning for prompt in all_prompts(skill)}
        ordered = sorted(meanings, key=lambda m: hashlib.sha256(m.encode()).digest())
        start = 0
        for split, share in _HELD_OUT.items():
            stop = start + max(1, round(share * len(ordered)))
            table |= dict.fromkeys(ordered[start:stop], split)
            start = stop
        table |= dict.fromkeys(ordered[start:], "train")
    return table


def _single_object() -> Iterator[Prompt]:
    for kind, place in product(SHAPES, ("", *_SIDES, *_CORNERS)):
        noun = Noun(kind=kind)
        claims = (Exists(noun=noun), *_within(noun, place), Only(n=1))
        yield Prompt(text=f"a single {kind}{_at_the(place)}", skill="single_object", claims=claims)


def _colors() -> Iterator[Prompt]:
    for color, kind, place in product(COLORS, SHAPES, ("", *_SIDES)):
        noun = Noun(kind=kind, color=color)
        claims = (Exists(noun=Noun(kind=kind)), Exists(noun=noun), *_within(noun, place), Only(n=1))
        yield Prompt(text=f"a {color} {kind}{_at_the(place)}", skill="colors", claims=claims)


def _two_objects() -> Iterator[Prompt]:
    colors = [(None, None), *((c, None) for c in COLORS), *((None, c) for c in COLORS)]
    for (kind_1, kind_2), (color_1, color_2) in product(permutations(SHAPES, 2), colors):
        first, second = Noun(kind=kind_1, color=color_1), Noun(kind=kind_2, color=color_2)
        claims = (*_exists(first), *_exists(second), Only(n=2))
        yield Prompt(text=f"{_a(first)} and {_a(second)}", skill="two_objects", claims=claims)


def _counting() -> Iterator[Prompt]:
    for n, kind, color in product(_NUMBERS, SHAPES, (None, *COLORS)):
        noun, any_color = Noun(kind=kind, color=color), Noun(kind=kind)
        colored = (Count(noun=noun, n=n),) if color else ()
        claims = (Exists(noun=any_color), Count(noun=any_color, n=n), *colored, Only(n=n))
        yield Prompt(text=_some(noun, n), skill="counting", claims=claims)
    for (kind_1, kind_2), n, m in product(permutations(SHAPES, 2), (1, *_NUMBERS), (1, *_NUMBERS)):
        if 2 < n + m <= MAX_SHAPES:
            first, second = Noun(kind=kind_1), Noun(kind=kind_2)
            claims = (Count(noun=first, n=n), Count(noun=second, n=m), Only(n=n + m))
            yield Prompt(text=f"{_some(first, n)} and {_some(second, m)}", skill="counting", claims=claims)


def _position() -> Iterator[Prompt]:
    for (kind_1, kind_2), color, relation in product(permutations(SHAPES, 2), (None, *COLORS), _RELATIONS):
        first, second = Noun(kind=kind_1, color=color), Noun(kind=kind_2)
        axis, forward = _RELATIONS[relation]
        a, b = (first, second) if forward else (second, first)
        where = Before(first=a, second=b, axis=axis)
        claims = (Exists(noun=first), Exists(noun=second), where, Only(n=2))
        yield Prompt(text=f"{_a(first)} {relation} {_a(second)}", skill="position", claims=claims)


def _color_attribution() -> Iterator[Prompt]:
    for kinds, colors in product(permutations(SHAPES, 2), permutations(COLORS, 2)):
        first, second = (Noun(kind=k, color=c) for k, c in zip(kinds, colors, strict=True))
        claims = (*_exists(first), *_exists(second), Only(n=2))
        yield Prompt(text=f"{_a(first)} and {_a(second)}", skill="color_attribution", claims=claims)


_ENUMERATE = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attribution": _color_attribution,
}


def _exists(noun: Noun) -> tuple[Claim, ...]:
    """One claim for the kind and, where a color is named, one more for the kind in that color."""
    return tuple(dict.fromkeys((Exists(noun=Noun(kind=noun.kind)), Exists(noun=noun))))


def _within(noun: Noun, place: str) -> tuple[Claim, ...]:
    """A claim for each side that a place names: "top left" names two."""
    return tuple(
        Within(noun=noun, axis=axis, low=low) for axis, low in (_SIDES[word] for word in place.split())
    )


def _at_the(place: str) -> str:
    return f" at the {place}" if place else ""


def _a(noun: Noun) -> str:
    return f"a {noun.color} {noun.kind}" if noun.color else f"a {noun.kind}"


def _some(noun: Noun, n: int) -> str:
    if n == 1:
        return _a(noun)
    words = (_NUMBERS[n], *filter(None, (noun.color,)), f"{noun.kind}s")
    return " ".join(words)
