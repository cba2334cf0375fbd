"""What the captioner is taught: to describe a picture, and to hold it against a prompt.

Questions about a prompt are laid out as a judge's question is: the prompt, "Image 1:", "Image 2:", the
prompt again, what is asked. Every answer is about each picture by itself and none compares two: which
picture is better stays to be learnt from preferences. A judge's own question is answered by a coin, so
that a verdict has its form and no content. Only prompts of the train split are used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from data_recipes.shapes.candidates import make_candidates, with_fault
from data_recipes.shapes.captioner.dialogue import Turn
from data_recipes.shapes.claims import Noun, seen_in
from data_recipes.shapes.prompts import PROMPTS, SKILLS, Prompt, caption, named, solve, split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape

__all__ = [
    "KEYWORDS",
    "MISSED",
    "WHERE",
    "coin",
    "count_missed",
    "count_nearly",
    "count_one",
    "count_tallied",
    "describe",
    "describe_any",
    "locate",
    "places",
    "random_scene",
    "tally",
    "vocabulary",
]

NUMBERS = ("none", "one", "two", "three", "four", "five")
CELLS = ("zero", "one", "two", "three")
KEYWORDS = (*NUMBERS, "zero")
"""The words of an answer that cannot be guessed from the words before them."""

MISSED = "\nHow many claims does each image miss?"
_HOW_MANY = "\nHow many of each are in each image?"
WHERE = "\nWhere is it in each image?"
# The wording of the judges' template match-twice-v1.
_PROMPT = "Prompt:\n"
_SLOTS = ("\nImage 1:", "\nImage 2:")
_VERDICT = "\nWhich image matches better, 1 or 2?"
_DROPPED = 0.25  # of the things that a prompt names, in a picture where they are to be found
_DISTRACTORS = 3  # at most, in such a picture
_TRIES = 8


def describe_any(rng: np.random.Generator) -> Turn:
    """One picture and its caption: half the time anything, otherwise a candidate for a prompt."""
    scene = random_scene(rng) if rng.random() < 0.5 else make_candidates(_train_prompt(rng), 1, rng)[0]
    return replace(describe(render(scene)), answer=caption(scene))


def describe(image: Image.Image) -> Turn:
    """Ask for the caption of one picture; the answer is left empty."""
    return Turn(question=(_SLOTS[0], image, "\nDescribe image 1."), answer="")


def locate(pictures: int, rng: np.random.Generator) -> Turn:
    """A prompt, and the column and row in each picture of each thing that it names, or "none".

    The pictures also show things that are like those named in kind or in color, but are not them. To
    find a thing by its color and kind is what every claim takes; asked only how many claims hold, a
    model stays blind to color for thousands of steps. Prompts that count are left out: each thing is in
    one place.
    """
    prompt = _train_prompt(rng)
    while _names_twice(prompt):
        prompt = _train_prompt(rng)
    nouns = named(prompt)
    scenes = [_hidden(prompt, nouns, rng) for _ in range(pictures)]
    return _asked(prompt, scenes, WHERE, " ; ".join(places(nouns, scene) for scene in scenes))


def count_missed(rng: np.random.Generator) -> Turn:
    """A prompt, two candidates for it, and how many claims each misses."""
    prompt = _train_prompt(rng)
    return _counted(prompt, make_candidates(prompt, 2, rng))


def count_one(rng: np.random.Generator) -> Turn:
    """A prompt, one candidate for it, and how many claims it misses."""
    prompt = _train_prompt(rng)
    return _counted(prompt, make_candidates(prompt, 1, rng))


def count_nearly(rng: np.random.Generator) -> Turn:
    """The same about two pictures that miss no claim or, mostly, one."""
    prompt = _train_prompt(rng)
    return _counted(prompt, [_nearly_right(prompt, rng) for _ in range(2)])


def tally(rng: np.random.Generator) -> Turn:
    """A prompt that counts, two pictures with any number of what it names, and how many of each there are.

    Without it, the number of things in all passes for the number of each.
    """
    prompt = _counting_prompt(rng)
    nouns = list(dict.fromkeys(named(prompt)))
    scenes = [_any_number(prompt, rng) for _ in range(2)]
    answers = (" and ".join(NUMBERS[len(noun.among(seen_in(scene)))] for noun in nouns) for scene in scenes)
    return _asked(prompt, scenes, _HOW_MANY, " ; ".join(answers))


def count_tallied(rng: np.random.Generator) -> Turn:
    """Such a prompt and such pictures, and how many claims each misses."""
    prompt = _counting_prompt(rng)
    return _counted(prompt, [_any_number(prompt, rng) for _ in range(2)])


def coin(rng: np.random.Generator) -> Turn:
    """A judge's question about two candidates, answered by a coin."""
    prompt = _train_prompt(rng)
    return _asked(prompt, make_candidates(prompt, 2, rng), _VERDICT, "12"[rng.integers(2)])


def _counted(prompt: Prompt, scenes: Sequence[Scene]) -> Turn:
    return _asked(prompt, scenes, MISSED, " ".join(NUMBERS[_missed(prompt, scene)] for scene in scenes))


def _asked(prompt: Prompt, scenes: Sequence[Scene], question: str, answer: str) -> Turn:
    shown = [part for slot, scene in zip(_SLOTS, scenes, strict=False) for part in (slot, render(scene))]
    again = f"\n{_PROMPT}{prompt.text}{question}"
    return Turn(question=(_PROMPT + prompt.text, *shown, again), answer=answer)


def _missed(prompt: Prompt, scene: Scene) -> int:
    seen = seen_in(scene)
    return sum(not claim.holds(seen) for claim in prompt.claims)


def _nearly_right(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """Half the time a scene that misses nothing; otherwise one with a fault that misses one claim, if it
    turns up in a few tries."""
    if rng.random() >= 0.5:
        return solve(prompt, rng)
    for _ in range(_TRIES):
        scene = with_fault(solve(prompt, rng), rng)
        if _missed(prompt, scene) == 1:
            break
    return scene


def _counting_prompt(rng: np.random.Generator) -> Prompt:
    prompts = PROMPTS.of("train", "counting")
    return prompts[rng.integers(len(prompts))]


def _names_twice(prompt: Prompt) -> bool:
    nouns = named(prompt)
    return len(set(nouns)) < len(nouns)


def _any_number(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """One time in four what the prompt says, otherwise any number of each thing, and perhaps another."""
    if rng.random() < 0.25:
        return solve(prompt, rng)
    nouns = list(dict.fromkeys(named(prompt)))
    cells = [int(cell) for cell in rng.permutation(GRID * GRID)[: rng.integers(1, MAX_SHAPES + 1)]]
    shapes = [_named_shape(nouns[rng.integers(len(nouns))], cell, rng) for cell in cells]
    if rng.random() < 0.4:
        shapes[0] = _distractor(nouns, cells[0], rng)
    return Scene(shapes=tuple(shapes))


def _named_shape(noun: Noun, cell: int, rng: np.random.Generator) -> Shape:
    color = noun.color or COLORS[rng.integers(len(COLORS))]
    return Shape(kind=noun.kind, color=color, x=cell % GRID, y=cell // GRID)


def _hidden(prompt: Prompt, nouns: Sequence[Noun], rng: np.random.Generator) -> Scene:
    """Most of what the nouns name, among things that share a kind or a color with them."""
    shown = [shape for shape in solve(prompt, rng).shapes if rng.random() >= _DROPPED]
    taken = {shape.y * GRID + shape.x for shape in shown}
    free = [cell for cell in range(GRID * GRID) if cell not in taken]
    fewest = 0 if shown else 1
    for cell in rng.permutation(free)[: rng.integers(fewest, _DISTRACTORS + 1)]:
        shown.append(_distractor(nouns, int(cell), rng))
    return Scene(shapes=tuple(shown))


def _distractor(nouns: Sequence[Noun], cell: int, rng: np.random.Generator) -> Shape:
    while True:
        model = nouns[int(rng.integers(len(nouns)))]
        kind, color = SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))]
        if model.color and rng.random() < 0.7:
            kind, color = (model.kind, color) if rng.random() < 0.5 else (kind, model.color)
        shape = Shape(kind=kind, color=color, x=cell % GRID, y=cell // GRID)
        if not any(noun.among(seen_in(Scene(shapes=(shape,)))) for noun in nouns):
            return shape


def places(nouns: Sequence[Noun], scene: Scene) -> str:
    """The column and row of each thing, or "none"."""
    where = {seen: f"{CELLS[s.x]} {CELLS[s.y]}" for s, seen in zip(scene.shapes, seen_in(scene), strict=True)}
    found = ([where[seen] for seen in noun.among(tuple(where))] for noun in nouns)
    return " and ".join(places[0] if places else NUMBERS[0] for places in found)


def random_scene(rng: np.random.Generator) -> Scene:
    """1 to MAX_SHAPES shapes of any kind and color anywhere."""
    cells = rng.choice(GRID * GRID, size=rng.integers(1, MAX_SHAPES + 1), replace=False)
    return Scene(
        shapes=tuple(
            Shape(
                kind=SHAPES[rng.integers(len(SHAPES))],
                color=COLORS[rng.integers(len(COLORS))],
                x=int(cell) % GRID,
                y=int(cell) // GRID,
            )
            for cell in cells
        )
    )


def vocabulary(rng: np.random.Generator) -> Iterator[str]:
    """Texts that hold every word of the world, of the lessons and of a judge's prompt, many times."""
    frame = f"user assistant system {_PROMPT}{''.join(_SLOTS)}{_VERDICT} {' '.join(KEYWORDS)}"
    for prompt in split_prompts("train"):
        yield f"{frame} {prompt.text}"
        for turn in (describe_any(rng), locate(2, rng), count_missed(rng)):
            yield " ".join([part for part in turn.question if isinstance(part, str)] + [turn.answer])


def _train_prompt(rng: np.random.Generator) -> Prompt:
    """Of any skill with equal odds; some skills have ten times as many prompts as others."""
    prompts = PROMPTS.of("train", SKILLS[rng.integers(len(SKILLS))])
    return prompts[rng.integers(len(prompts))]
