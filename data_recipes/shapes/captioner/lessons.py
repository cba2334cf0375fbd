"""What the captioner is taught: to describe a picture, and to hold it against a prompt, claim by claim.

Dialogues about a prompt are laid out as a judge's question is: the prompt, "Image 1:", "Image 2:", the
prompt again, a question. Every answer is about each picture by itself and none compares two: which
picture is better stays to be learnt from preferences. A judge's own question is answered by a coin, so
that a verdict has its form and no content. Only prompts of the train split are used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.captioner.dialogue import Turn
from data_recipes.shapes.claims import Before, Claim, Count, Exists, Noun, Only, seen_in
from data_recipes.shapes.prompts import SKILLS, Prompt, caption, split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape

__all__ = [
    "KEYWORDS",
    "about_picture",
    "about_prompt",
    "claim_text",
    "coin",
    "describe",
    "random_scene",
    "vocabulary",
]

NUMBERS = ("none", "one", "two", "three", "four", "five")
KEYWORDS = (*NUMBERS, "yes", "no")
"""The words of an answer that cannot be guessed from the words before them."""

# A judge's wording around the prompt and the images.
_PROMPT = "Prompt:\n"
_SLOTS = ("\nImage 1:", "\nImage 2:")
_VERDICT = "\nWhich image matches better, 1 or 2?"


def about_picture(rng: np.random.Generator) -> list[Turn]:
    """One picture and its caption: half the time anything, otherwise a candidate for a prompt."""
    scene = random_scene(rng) if rng.random() < 0.5 else make_candidates(_train_prompt(rng), 1, rng)[0]
    return [replace(describe(render(scene)), answer=caption(scene))]


def about_prompt(pictures: int, rng: np.random.Generator, *, by_skill: bool, details: int) -> list[Turn]:
    """A prompt and one or two candidates for it: how many claims each misses, then some `details`.

    `by_skill` draws every skill equally often, otherwise every prompt.
    """
    prompt = _train_prompt(rng, by_skill=by_skill)
    scenes = make_candidates(prompt, pictures, rng)
    missed = " ".join(NUMBERS[_holds(prompt, scene).count(False)] for scene in scenes)
    first = _asked(prompt, scenes, "\nHow many claims does each image miss?", missed)
    further = [turn for number, scene in enumerate(scenes, 1) for turn in _details(prompt, scene, number)]
    return [first, *(further[n] for n in rng.permutation(len(further))[:details])]


def coin(rng: np.random.Generator) -> list[Turn]:
    """A judge's question about two candidates, answered by a coin."""
    prompt = _train_prompt(rng, by_skill=True)
    return [_asked(prompt, make_candidates(prompt, 2, rng), _VERDICT, "12"[rng.integers(2)])]


def _asked(prompt: Prompt, scenes: Sequence[Scene], question: str, answer: str) -> Turn:
    shown = [part for slot, scene in zip(_SLOTS, scenes, strict=False) for part in (slot, render(scene))]
    again = f"\n{_PROMPT}{prompt.text}{question}"
    return Turn(question=(_PROMPT + prompt.text, *shown, again), answer=answer)


def describe(image: Image.Image) -> Turn:
    """Ask for the caption of one picture; the answer is left empty."""
    return Turn(question=(_SLOTS[0], image, "\nDescribe image 1."), answer="")


def _holds(prompt: Prompt, scene: Scene) -> list[bool]:
    seen = seen_in(scene)
    return [claim.holds(seen) for claim in prompt.claims]


def _details(prompt: Prompt, scene: Scene, number: int) -> Iterator[Turn]:
    """What can be asked of one picture, each with the answer."""
    verdicts = (
        f"{claim_text(claim)} {'yes' if holds else 'no'}"
        for claim, holds in zip(prompt.claims, _holds(prompt, scene), strict=True)
    )
    yield Turn(question=(f"Check image {number}.",), answer=" ; ".join(verdicts))
    yield Turn(question=(f"Describe image {number}.",), answer=caption(scene))


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


def claim_text(claim: Claim) -> str:
    """The claim in English, such as "a circle left of a star" or "two in all"."""
    if isinstance(claim, Exists):
        return _counted(claim.noun, 1)
    if isinstance(claim, Count):
        return f"exactly {_counted(claim.noun, claim.n)}"
    if isinstance(claim, Only):
        return f"{NUMBERS[claim.n]} in all"
    if isinstance(claim, Before):
        relation = "left of" if claim.axis == "x" else "above"
        return f"{_counted(claim.first, 1)} {relation} {_counted(claim.second, 1)}"
    low, high = ("left", "right") if claim.axis == "x" else ("top", "bottom")
    return f"{_counted(claim.noun, 1)} at the {low if claim.low else high}"


def _counted(noun: Noun, n: int) -> str:
    name = f"{noun.color} {noun.kind}" if noun.color else noun.kind
    return f"a {name}" if n == 1 else f"{NUMBERS[n]} {name}s"


def vocabulary(rng: np.random.Generator) -> Iterator[str]:
    """Texts that hold every word of the world, of the lessons and of a judge's prompt, many times."""
    frame = f"user assistant system {_PROMPT}{''.join(_SLOTS)}{_VERDICT} {' '.join(KEYWORDS)}"
    for prompt in split_prompts("train"):
        yield f"{frame} {prompt.text}"
        for turn in (*about_picture(rng), *about_prompt(2, rng, by_skill=False, details=2)):
            yield " ".join([part for part in turn.question if isinstance(part, str)] + [turn.answer])


def _train_prompt(rng: np.random.Generator, *, by_skill: bool = False) -> Prompt:
    prompts = split_prompts("train")
    if by_skill:
        skill = SKILLS[rng.integers(len(SKILLS))]
        prompts = tuple(prompt for prompt in prompts if prompt.skill == skill)
    return prompts[rng.integers(len(prompts))]
