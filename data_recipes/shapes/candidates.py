"""Imperfect answers to a prompt: scenes that solve it, with the faults that text-to-image models make.

Nothing here is scored. A fault may leave every claim true (an open color changed), so quality is what
the oracle finds in the rendered picture, never the number of faults.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from data_recipes.shapes.prompts import Prompt, solve
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape

__all__ = ["FAULTS", "free_cell", "make_candidates", "other", "with_fault"]

_FAULT_COUNTS = (0.18, 0.34, 0.28, 0.2)  # probabilities that a candidate has 0, 1, 2 or 3 faults


def make_candidates(prompt: Prompt, k: int, rng: np.random.Generator) -> tuple[Scene, ...]:
    """K scenes for one prompt, laid out independently, from perfect to mostly wrong, in random order."""
    scenes = []
    for faults in rng.choice(len(_FAULT_COUNTS), size=k, p=_FAULT_COUNTS):
        scene = solve(prompt, rng)
        for _ in range(faults):
            scene = with_fault(scene, rng)
        scenes.append(scene)
    return tuple(scenes)


def with_fault(scene: Scene, rng: np.random.Generator, among: Sequence[str] = ()) -> Scene:
    """The scene with one fault of those names, or any out of FAULTS, that it can have."""
    names = tuple(among or FAULTS)
    while True:
        name = names[rng.integers(len(names))]
        if (faulty := FAULTS[name](scene, rng)) is not None:
            return faulty


def _wrong_color(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _change_one(scene, rng, lambda shape: replace(shape, color=other(COLORS, shape.color, rng)))


def _wrong_kind(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _change_one(scene, rng, lambda shape: replace(shape, kind=other(SHAPES, shape.kind, rng)))


def _missing_object(scene: Scene, rng: np.random.Generator) -> Scene | None:
    if len(scene.shapes) == 1:
        return None
    gone = rng.integers(len(scene.shapes))
    return Scene(shapes=tuple(shape for n, shape in enumerate(scene.shapes) if n != gone))


def _extra_object(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """One more shape: in half of the cases another copy of one that is there (a wrong count)."""
    if len(scene.shapes) == MAX_SHAPES:
        return None
    x, y = free_cell(scene, rng)
    model = scene.shapes[rng.integers(len(scene.shapes))]
    if rng.random() < 0.5:
        extra = replace(model, x=x, y=y)
    else:
        kind, color = SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))]
        extra = Shape(kind=kind, color=color, x=x, y=y)
    return Scene(shapes=(*scene.shapes, extra))


def _wrong_place(scene: Scene, rng: np.random.Generator) -> Scene | None:
    x, y = free_cell(scene, rng)
    return _change_one(scene, rng, lambda shape: replace(shape, x=x, y=y))


def _swapped_colors(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _swap(scene, rng, lambda a, b: replace(a, color=b.color) if a.color != b.color else None)


def _swapped_places(scene: Scene, rng: np.random.Generator) -> Scene | None:
    same = ("kind", "color")
    return _swap(
        scene,
        rng,
        lambda a, b: replace(a, x=b.x, y=b.y) if any(getattr(a, s) != getattr(b, s) for s in same) else None,
    )


FAULTS: dict[str, Callable[[Scene, np.random.Generator], Scene | None]] = {
    "wrong_color": _wrong_color,
    "wrong_kind": _wrong_kind,
    "missing_object": _missing_object,
    "extra_object": _extra_object,
    "wrong_place": _wrong_place,
    "swapped_colors": _swapped_colors,
    "swapped_places": _swapped_places,
}
"""Each returns the faulty scene, or None where the scene cannot have that fault."""


def _change_one(scene: Scene, rng: np.random.Generator, change: Callable[[Shape], Shape]) -> Scene:
    shapes = list(scene.shapes)
    n = rng.integers(len(shapes))
    shapes[n] = change(shapes[n])
    return Scene(shapes=tuple(shapes))


def _swap(
    scene: Scene, rng: np.random.Generator, take: Callable[[Shape, Shape], Shape | None]
) -> Scene | None:
    """Let two shapes each take something of the other; None where there is nothing to exchange."""
    if len(scene.shapes) < 2:
        return None
    shapes = list(scene.shapes)
    i, j = rng.choice(len(shapes), size=2, replace=False)
    first, second = take(shapes[i], shapes[j]), take(shapes[j], shapes[i])
    if first is None or second is None:
        return None
    shapes[i], shapes[j] = first, second
    return Scene(shapes=tuple(shapes))


def free_cell(scene: Scene, rng: np.random.Generator) -> tuple[int, int]:
    taken = {(shape.x, shape.y) for shape in scene.shapes}
    free = [(x, y) for x in range(GRID) for y in range(GRID) if (x, y) not in taken]
    return free[rng.integers(len(free))]


def other(words: tuple[str, ...], word: str, rng: np.random.Generator) -> str:
    others = [w for w in words if w != word]
    return others[rng.integers(len(others))]
