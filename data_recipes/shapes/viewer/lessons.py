"""What the viewer is taught: how well one candidate fits a prompt of any world, and what that takes.

A question about a candidate is laid out as in the judges' template fit-late-v1: the prompt, the context, the
candidate, the prompt again, the criterion. Its answer is the truth value of each claim. No answer compares
two candidates. Only prompts of train splits are used.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from data_recipes.shapes import clips, criteria, edits, questions, recipe
from data_recipes.shapes.captioner import lessons as captioner
from data_recipes.shapes.captioner.dialogue import Marked, Part, Taught, Turn
from data_recipes.shapes.captioner.lessons import NUMBERS
from data_recipes.shapes.claims import Noun, seen_in
from data_recipes.shapes.clips import Clip, frames
from data_recipes.shapes.definition import World
from data_recipes.shapes.edits import Edit
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, Scene
from data_recipes.shapes.viewer import marks

__all__ = ["KEYWORDS", "MATCH", "WORLDS", "fit", "reply", "vocabulary"]

WORLDS: dict[str, World] = {
    "images": recipe.WORLD,
    "edits": edits.WORLD,
    "clips": clips.WORLD,
    "questions": questions.WORLD,
    "criteria": criteria.WORLD,
}
# The first words of the shortest answers: "No red stars.", "A red star."
_STARTS = ("No", "One", "Two", "Three", "A")
KEYWORDS = (*captioner.KEYWORDS, *COLORS, "yes", "no", *_STARTS, "left", "right", "above", "below")
"""The words of an answer that cannot be guessed from the words before them."""

_NOUNS = {Scene: "image", Clip: "video", str: "answer"}
_WHICH_HOLD = "\nWhich claims hold for the {noun}?"
_CANDIDATES = 3
FIT = ("\nWhich {noun} fits better, 1 or 2?", "\nThe {noun}:", "\nHow well does {noun} 1 fit?")
"""The wording of the judges' template fit-late-v1."""
MATCH = ("\nWhich {noun} matches better, 1 or 2?", "\nImage:", "\nHow well does {noun} 1 match?")
"""That of match-late-v1."""
# The wording of the judges' templates, so that each of their words is a token.
_TEMPLATES = (
    "Prompt:\n \nContext:\n \nImage 1: \nImage 2: \nImage: \nVideo: \nAnswer: \nThe image: \nThe video:"
    " \nThe answer: \nThe image 1: \nThe image 2: \nThe video 1: \nThe video 2: \nThe answer 1:"
    " \nThe answer 2: \nCriterion: alignment \nCriterion: overall \nCriterion: colors \nCriterion: layout"
    " \nWhich image matches the prompt better, 1 or 2? Answer 0 if neither does."
    " \nWhich image matches better, 1 or 2, or 0?"
    " \nWhich image fits better, 1 or 2, or 0? \nWhich video fits better, 1 or 2, or 0?"
    " \nWhich answer fits better, 1 or 2, or 0?"
    " \nHow well does image 1 match the prompt? \nHow well does image 1 fit? \nHow well does video 2 fit?"
    " \nHow well does answer 1 fit?"
    " \nHow good is this image, by itself and as an answer to the prompt? \nRating: <|Reward|>"
    " Does this image show everything that the following text asks for? \nAnswer Yes or No. yes no"
    " user assistant system"
)


def fit(
    world: World,
    rng: np.random.Generator,
    *,
    judged: bool,
    counted: bool = False,
    wording: tuple[str, str, str] = FIT,
) -> Turn:
    """A prompt and candidates, each by itself: of each of its claims, under one of the world's criteria,
    whether it holds. Asked where the candidate is seen, or where a judge answers, which sees its suffix.

    On the way to such an answer the number of claims that do not hold can be marked where the candidate ends,
    where the prompt has been read again, and where the suffix ends.
    """
    prompt = _prompt(world, rng)
    drawn = world.draw(prompt, _CANDIDATES, rng)
    noun = _NOUNS[type(drawn.candidates[0])]
    which, the, how = (text.format(noun=noun) for text in wording)
    branches = []
    for candidate in drawn.candidates:
        criterion = world.criteria[rng.integers(len(world.criteria))]
        verdicts = world.verdicts(prompt, drawn, candidate, criterion)
        shown: Iterable[Part] = _shown(prompt, drawn.context, candidate)
        again: Iterable[Part] = (prompt.text,)
        slot = int(rng.integers(2)) if judged else None
        asked: str | Marked = _WHICH_HOLD.format(noun=noun) if slot is None else how.replace("1", "12"[slot])
        if counted:
            asked = marks.ended(asked, verdicts)
            # A criterion has not been named before the suffix.
            if not criterion:
                *before, last = shown
                shown = (*before, last if isinstance(last, tuple) else marks.ended(last, verdicts))
                again = marks.again(prompt, verdicts)
        by = ("\nCriterion: ", criterion) if criterion else ()
        leaf = Turn(question=(*by, asked), answer=_each(verdicts), slot=slot)
        branches.append(Turn(question=(*shown, "\nPrompt:\n", *again), branches=(leaf,)))
    question = (*_asked(prompt, drawn.context), f"{which}{the}")
    return Turn(question=question, branches=tuple(branches))


def reply(rng: np.random.Generator) -> Turn:
    """A picture, a question and a right answer, which is learnt where a judge reads a candidate."""
    question = _prompt(questions.WORLD, rng)
    scene = questions.draw_picture(question, rng)
    seen = seen_in(scene)
    said = [questions.answer(part, seen, True, rng) for part in question.parts]
    text = questions.sentences(questions.phrase(statement, rng) for statement in said)
    which, the, _ = (text.format(noun="answer") for text in FIT)
    asked = (*_asked(question, scene), f"{which}{the}", Taught(text))
    return Turn(question=asked, answer=NUMBERS[0])


def _each(verdicts: Iterable[bool]) -> str:
    return " ".join("yes" if holds else "no" for holds in verdicts)


def vocabulary(rng: np.random.Generator) -> Iterator[str]:
    """Texts that hold every word of the worlds, of the lessons and of a judge's prompt, many times."""
    yield from captioner.vocabulary(rng)
    every: list[Callable[[np.random.Generator], Turn]]
    every = [*(partial(fit, world, judged=False) for world in WORLDS.values()), reply]
    for _ in range(200):
        for lesson in every:
            turn = lesson(rng)
            yield " ".join((_TEMPLATES, *_texts(turn)))


def _texts(turn: Turn) -> Iterator[str]:
    parts = (part.part if isinstance(part, Marked) else part for part in turn.question)
    yield from (part for part in parts if isinstance(part, str))
    yield turn.answer
    for branch in turn.branches:
        yield from _texts(branch)


def _prompt(world: World, rng: np.random.Generator) -> Any:
    """A prompt of the train split, of any skill with equal odds."""
    skill = world.prompts.skills[rng.integers(len(world.prompts.skills))]
    prompts = world.prompts.of("train", skill)
    return prompts[rng.integers(len(prompts))]


def _asked(prompt: Any, context: Scene | None) -> tuple[Part, ...]:
    return (
        "Prompt:\n",
        prompt.text,
        *(("\nContext:", marks.context(_named(prompt), context)) if context else ()),
    )


def _named(prompt: Any) -> Iterable[Noun]:
    return (prompt.noun,) if isinstance(prompt, Edit) else (n for part in prompt.parts for n in part.nouns)


def _shown(prompt: Any, context: Scene | None, candidate: Any) -> Iterable[Part]:
    """A candidate; what is compared with its context is marked."""
    if isinstance(candidate, Clip):
        return (tuple(_compressed(frame) for frame in frames(candidate)),)
    if context is None:
        return (render(candidate),)
    if isinstance(candidate, str):
        return marks.answer(prompt, context, candidate)
    return (marks.result(prompt, context, candidate),)


def _compressed(image: Image.Image) -> Image.Image:
    """With the colors of neighbouring pixels mixed, as a video file has them."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return Image.open(file)
