"""The world of edits: a source picture and an instruction; candidates are edited pictures.

A right edit changes what the instruction says and nothing else: besides the change, each other thing that
is still there is a claim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from data_recipes.shapes.candidates import free_cell, other, with_fault
from data_recipes.shapes.claims import Claim, Count, Exists, Noun, Only, Seen, Within, seen_in
from data_recipes.shapes.definition import Drawn, World
from data_recipes.shapes.prompt_set import PromptSet
from data_recipes.shapes.prompts import SIDES, at_the, indefinite
from data_recipes.shapes.recipe import recipe_of
from data_recipes.shapes.scene import COLORS, GRID, SHAPES, Scene, Shape

__all__ = ["RECIPE", "WORLD", "Edit", "apply", "draw_source", "wanted"]

_SOURCE_SHAPES = (2, 3)  # fewest and most things in a source
_SIDE_EFFECTS = (0.5, 0.35, 0.15)  # probabilities that a candidate has 0, 1 or 2 faults besides its edit
_FAULTS = ("wrong_color", "wrong_kind", "missing_object", "extra_object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An instruction.

    Attributes:
        skill: "recolor", "replace", "remove" or "add".
        noun: the thing that is edited, or added.
        to: its new color or kind; of an added thing its side, or nothing.
    """

    skill: str
    noun: Noun
    to: str = ""

    @property
    def text(self) -> str:
        """The instruction in English."""
        the = indefinite(self.noun).replace("a ", "the ", 1)
        match self.skill:
            case "recolor":
                return f"make {the} {self.to}"
            case "replace":
                return f"turn {the} into a {self.to}"
            case "remove":
                return f"remove {the}"
        return f"add {indefinite(self.noun)}{at_the(self.to)}"

    @property
    def meaning(self) -> str:
        """No two instructions mean the same."""
        return self.text


def _nouns() -> Iterator[Noun]:
    for kind, color in product(SHAPES, (None, *COLORS)):
        yield Noun(kind=kind, color=color)


def _recolor() -> Iterator[Edit]:
    for noun, color in product(_nouns(), COLORS):
        if noun.color != color:
            yield Edit(skill="recolor", noun=noun, to=color)


def _replace() -> Iterator[Edit]:
    for noun, kind in product(_nouns(), SHAPES):
        if noun.kind != kind:
            yield Edit(skill="replace", noun=noun, to=kind)


def _remove() -> Iterator[Edit]:
    for noun in _nouns():
        yield Edit(skill="remove", noun=noun)


def _add() -> Iterator[Edit]:
    for noun, side in product(_nouns(), ("", *SIDES)):
        if noun.color:
            yield Edit(skill="add", noun=noun, to=side)


def draw_source(edit: Edit, rng: np.random.Generator) -> Scene:
    """A scene to which the edit applies: no two things look alike, so that the noun names one of them."""
    while True:
        n = int(rng.integers(_SOURCE_SHAPES[0], _SOURCE_SHAPES[1] + 1))
        looks = rng.choice(len(COLORS) * len(SHAPES), size=n, replace=False)
        cells = rng.choice(GRID * GRID, size=n, replace=False)
        shapes = [
            Shape(
                kind=SHAPES[look % len(SHAPES)],
                color=COLORS[look // len(SHAPES)],
                x=int(cell) % GRID,
                y=int(cell) // GRID,
            )
            for look, cell in zip(looks, cells, strict=True)
        ]
        if edit.skill != "add":
            shapes[0] = replace(shapes[0], kind=edit.noun.kind, color=edit.noun.color or shapes[0].color)
        scene = Scene(shapes=tuple(shapes))
        if _applies(edit, scene):
            return scene


def _applies(edit: Edit, scene: Scene) -> bool:
    """Whether the edit changes the scene, in one way, and leaves it with no two things that look alike."""
    seen = seen_in(scene)
    named = edit.noun.among(seen)
    if len({(s.kind, s.color) for s in seen}) < len(seen) or len(named) != (edit.skill != "add"):
        return False
    if edit.skill == "remove":
        return len(seen) > 1
    return edit.skill == "add" or (
        not _change(edit, named).holds(seen) and not _duplicates(edit, named, seen)
    )


def _duplicates(edit: Edit, named: Sequence[Seen], seen: Sequence[Seen]) -> bool:
    return edit.skill in _LOOKS and bool(_after(edit, named[0]).among(seen))


_LOOKS = ("recolor", "replace")
"""Edits that change the look of a thing."""


def _after(edit: Edit, thing: Seen | Shape | Noun) -> Noun:
    """The look of the edited thing after the edit."""
    return Noun(
        kind=edit.to if edit.skill == "replace" else thing.kind,
        color=edit.to if edit.skill == "recolor" else thing.color,
    )


def _change(edit: Edit, named: Sequence[Seen]) -> Claim:
    """The claim that a picture shows the requested change."""
    if edit.skill == "add" and edit.to:
        axis, low = SIDES[edit.to]
        return Within(noun=edit.noun, axis=axis, low=low)
    if edit.skill == "add":
        return Exists(noun=edit.noun)
    after = _after(edit, named[0])
    return Count(noun=after, n=0) if edit.skill == "remove" else Exists(noun=after)


def _claims(edit: Edit, criterion: str, seen: Sequence[Seen]) -> list[Claim]:
    """The change, each other thing, and nothing else."""
    named = edit.noun.among(seen)[:1] if edit.skill != "add" else []
    others = sorted((s for s in seen if not (named and s is named[0])), key=lambda s: (round(s.y, 2), s.x))
    stay = [Exists(noun=Noun(kind=s.kind, color=s.color)) for s in others]
    n = len(seen) + {"add": 1, "remove": -1}.get(edit.skill, 0)
    return [_change(edit, named), *stay, Only(n=n)]


def apply(edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene after the edit; a place that the instruction leaves open is drawn."""
    if edit.skill == "add":
        x, y = _free_place(scene, edit.to, rng)
        assert edit.noun.color is not None
        return Scene(shapes=(*scene.shapes, Shape(kind=edit.noun.kind, color=edit.noun.color, x=x, y=y)))
    shapes = []
    for shape, seen in zip(scene.shapes, seen_in(scene), strict=True):
        if not edit.noun.among([seen]):
            shapes.append(shape)
        elif edit.skill != "remove":
            after = _after(edit, seen)
            shapes.append(replace(shape, kind=after.kind, color=after.color or shape.color))
    return Scene(shapes=tuple(shapes))


def wanted(edit: Edit, source: Scene, result: Scene) -> dict[tuple[int, int], Noun | None]:
    """For each cell in which source or result show something, what the result should show there.

    What is added is right in each free cell of the instruction's side.
    """
    before, after = (
        {(s.x, s.y): Noun(kind=s.kind, color=s.color) for s in scene.shapes} for scene in (source, result)
    )
    right = dict.fromkeys(after) | before
    if edit.skill == "add":
        right |= dict.fromkeys((c for c in after.keys() - before if _is_at(c, edit.to)), edit.noun)
    else:
        [(cell, noun)] = ((c, n) for c, n in before.items() if edit.noun in (n, Noun(kind=n.kind)))
        right[cell] = None if edit.skill == "remove" else _after(edit, noun)
    return right


def _free_place(scene: Scene, side: str, rng: np.random.Generator) -> tuple[int, int]:
    while True:
        cell = free_cell(scene, rng)
        if _is_at(cell, side):
            return cell


def _is_at(cell: tuple[int, int], side: str) -> bool:
    if not side:
        return True
    axis, low = SIDES[side]
    return (cell["xy".index(axis)] < GRID // 2) == low


def _wrong_value(edit: Edit, scene: Scene, rng: np.random.Generator) -> Edit:
    """The same edit to another color, kind or side, or of another thing where it has none."""
    if edit.skill == "add" and (not edit.to or rng.random() < 0.7):
        assert edit.noun.color is not None
        if rng.random() < 0.5:
            return replace(edit, noun=replace(edit.noun, kind=other(SHAPES, edit.noun.kind, rng)))
        return replace(edit, noun=replace(edit.noun, color=other(COLORS, edit.noun.color, rng)))
    if edit.skill == "remove":
        return _wrong_thing(edit, scene, rng)
    values = {"recolor": COLORS, "replace": SHAPES, "add": tuple(SIDES)}[edit.skill]
    return replace(edit, to=other(values, edit.to, rng))


def _wrong_thing(edit: Edit, scene: Scene, rng: np.random.Generator) -> Edit:
    """The same edit of another thing of the scene; what is added is another thing, too."""
    if edit.skill == "add":
        return _wrong_value(edit, scene, rng)
    things = [s for s, seen in zip(scene.shapes, seen_in(scene), strict=True) if not edit.noun.among([seen])]
    thing = things[rng.integers(len(things))]
    return replace(edit, noun=Noun(kind=thing.kind, color=thing.color))


def _draw_edited(edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    """An edited picture: the right edit, a wrong one or none, and perhaps side effects."""
    chance = rng.random()
    if chance < 0.5:
        edited = apply(edit, scene, rng)
    elif chance < 0.68:
        edited = apply(_wrong_value(edit, scene, rng), scene, rng)
    elif chance < 0.86:
        edited = apply(_wrong_thing(edit, scene, rng), scene, rng)
    else:
        edited = scene
    for _ in range(rng.choice(len(_SIDE_EFFECTS), p=_SIDE_EFFECTS)):
        edited = with_fault(edited, rng, _FAULTS)
    return edited


def _draw(edit: Edit, k: int, rng: np.random.Generator) -> Drawn:
    scene = draw_source(edit, rng)
    return Drawn(context=scene, candidates=tuple(_draw_edited(edit, scene, rng) for _ in range(k)))


WORLD = World(
    name="shapes-edits",
    summary="edits of pictures of colored shapes by instruction, oracle labels, nothing to download",
    prompts=PromptSet(
        "shapes-edits",
        {"recolor": _recolor, "replace": _replace, "remove": _remove, "add": _add},
    ),
    draw=_draw,
    claims=_claims,
)
RECIPE = recipe_of(WORLD)
