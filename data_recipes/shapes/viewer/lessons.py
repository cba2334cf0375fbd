"""What the viewer is taught: how well one candidate fits a prompt of any world, and what that takes.

A question about a candidate is laid out as in the judges' template fit-late-v1: the prompt, the context, the
candidate, the prompt again, the criterion. Its answer says of each claim whether it holds. No answer compares
two candidates. Only prompts of train splits are used.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from data_recipes.shapes import clips, criteria, edits, questions, recipe
from data_recipes.shapes.captioner import lessons as captioner
from data_recipes.shapes.captioner.dialogue import Frames, Taught, Turn
from data_recipes.shapes.captioner.lessons import NUMBERS
from data_recipes.shapes.claims import Before, Count, Exists, Noun, seen_in
from data_recipes.shapes.clips import Clip, frames
from data_recipes.shapes.definition import World
from data_recipes.shapes.prompts import caption
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, SHAPES, Scene

__all__ = [
    "KEYWORDS",
    "MATCH",
    "WORLDS",
    "answers",
    "changes",
    "compare",
    "fit",
    "lookup",
    "reply",
    "vocabulary",
]

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
_SHORTLY = "\nAnswer each part in one word."
_SIDES = {"x": ("left", "right"), "y": ("above", "below")}
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


def fit(world: World, rng: np.random.Generator, *, wording: tuple[str, str, str] = FIT) -> Turn:
    """A prompt and candidates, each by itself: of each of its claims, under one of the world's criteria,
    whether it holds. Asked where the candidate is seen, and where a judge answers, which sees its suffix.

    The number of claims that hold would say as much as a judge needs. Asked for that, a model passes next to
    nothing on to the suffix.
    """
    prompt = _prompt(world, rng)
    drawn = world.draw(prompt, _CANDIDATES, rng)
    noun = _NOUNS[type(drawn.candidates[0])]
    which, the, how = (text.format(noun=noun) for text in wording)
    branches = []
    for candidate in drawn.candidates:
        criterion = world.criteria[rng.integers(len(world.criteria))]
        holds = _each(world.verdicts(prompt, drawn, candidate, criterion))
        by = ("\nCriterion: ", criterion) if criterion else ()
        slot = int(rng.integers(2))
        asked = (
            Turn(question=(*by, how.replace("1", "12"[slot])), answer=holds, slot=slot),
            Turn(question=(*by, _WHICH_HOLD.format(noun=noun)), answer=holds),
        )
        shown = (_shown(candidate, rng), "\nPrompt:\n", prompt.text)
        branches.append(Turn(question=shown, branches=asked))
    question = (*_asked(prompt, drawn.context), f"{which}{the}")
    return Turn(question=question, branches=tuple(branches))


def changes(rng: np.random.Generator) -> Turn:
    """The source of an edit and some results: of each thing in one, whether the other shows one like it.

    Each is named as in a caption, so that only what was kept is new to learn.
    """
    prompt = _prompt(edits.WORLD, rng)
    drawn = edits.WORLD.draw(prompt, _CANDIDATES, rng)
    assert drawn.context is not None
    branches = []
    for result in drawn.candidates:
        asked = (
            Turn(
                question=("\nWhat is in the image and was in the context?",),
                answer=_kept(result, drawn.context),
            ),
            Turn(
                question=("\nWhat was in the context and is in the image?",),
                answer=_kept(drawn.context, result),
            ),
        )
        branches.append(Turn(question=("\nThe image:", render(result)), branches=asked))
    return Turn(question=_asked(prompt, drawn.context), branches=tuple(branches))


def _kept(scene: Scene, other: Scene) -> str:
    looks = {(shape.color, shape.kind) for shape in other.shapes}
    said = zip(caption(scene).split(" ; "), scene.in_reading_order().shapes, strict=True)
    return " ; ".join(f"{named} {'yes' if (s.color, s.kind) in looks else 'no'}" for named, s in said)


def answers(rng: np.random.Generator) -> Turn:
    """A question about a picture, and the answer to each part in one word."""
    question = _prompt(questions.WORLD, rng)
    scene = questions.draw_picture(question, rng)
    seen = seen_in(scene)
    words = (_word(questions.answer(part, seen, True, rng), part) for part in question.parts)
    return Turn(question=(*_asked(question, scene), _SHORTLY), answer=" ".join(words))


def lookup(rng: np.random.Generator) -> Turn:
    """A picture, then sentences that name things, and the column and row of each.

    As `locate`, but no part of the picture has seen the sentences: their words must look for themselves.
    """
    question = _prompt(questions.WORLD, rng)
    scene = questions.draw_picture(question, rng)
    branches = []
    for _ in range(_CANDIDATES):
        nouns = [_mentioned(scene, rng) for _ in range(2)]
        text = questions.sentences(questions.phrase(Exists(noun=noun), rng) for noun in nouns)
        branches.append(Turn(question=(text, captioner.WHERE), answer=captioner.places(nouns, scene)))
    _, the, _ = (part.format(noun="answer") for part in FIT)
    return Turn(question=(*_asked(question, scene), the), branches=tuple(branches))


def _mentioned(scene: Scene, rng: np.random.Generator) -> Noun:
    """A thing of the scene, or one that is not there, mostly much like one that is; never one of several."""
    seen = seen_in(scene)
    while True:
        like = scene.shapes[rng.integers(len(scene.shapes))]
        color: str | None = like.color
        kind = like.kind
        if rng.random() < 0.2:
            color = None
        elif rng.random() < 0.3:
            color = COLORS[rng.integers(len(COLORS))]
        if rng.random() < 0.2:
            kind = SHAPES[rng.integers(len(SHAPES))]
        noun = Noun(kind=kind, color=color)
        if len(noun.among(seen)) <= 1:
            return noun


def compare(rng: np.random.Generator) -> Turn:
    """A question about a picture and some answers: of each part, what is true, what is said, and whether they
    are the same.
    """
    question = _prompt(questions.WORLD, rng)
    scene = questions.draw_picture(question, rng)
    seen = seen_in(scene)
    which, the, _ = (text.format(noun="answer") for text in FIT)
    branches = []
    for _ in range(_CANDIDATES):
        right = [bool(rng.random() < 0.5) for _ in question.parts]
        said = [
            questions.answer(part, seen, each, rng) for part, each in zip(question.parts, right, strict=True)
        ]
        true = [questions.answer(part, seen, True, rng) for part in question.parts]
        both = (
            f"{_word(a, part)} {_word(b, part)}"
            for part, a, b in zip(question.parts, true, said, strict=True)
        )
        text = questions.sentences(questions.phrase(statement, rng) for statement in said)
        asked = (
            Turn(
                question=("\nWhat is in the image, and what does the answer say?",), answer=" ; ".join(both)
            ),
            Turn(question=(_WHICH_HOLD.format(noun="answer"),), answer=_each(right)),
        )
        branches.append(Turn(question=(text, "\nPrompt:\n", question.text), branches=asked))
    return Turn(question=(*_asked(question, scene), f"{which}{the}"), branches=tuple(branches))


def _word(statement: questions.Statement, part: questions.Part) -> str:
    match statement:
        case Count(n=n):
            return NUMBERS[n] if part.skill == "count" else "no"
        case Exists(noun=noun):
            return str(noun.color) if part.skill == "color" else "yes"
        case Before(first=first, axis=axis):
            return _SIDES[axis][first != part.noun]
    raise AssertionError(statement)


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


def _each(verdicts: Sequence[bool]) -> str:
    return " ".join("yes" if holds else "no" for holds in verdicts)


def vocabulary(rng: np.random.Generator) -> Iterator[str]:
    """Texts that hold every word of the worlds, of the lessons and of a judge's prompt, many times."""
    yield from captioner.vocabulary(rng)
    every: list[Callable[[np.random.Generator], Turn]]
    every = [*(partial(fit, world) for world in WORLDS.values()), answers, changes, reply]
    for _ in range(200):
        for lesson in every:
            turn = lesson(rng)
            yield " ".join((_TEMPLATES, *_texts(turn)))


def _texts(turn: Turn) -> Iterator[str]:
    yield from (part for part in turn.question if isinstance(part, str))
    yield turn.answer
    for branch in turn.branches:
        yield from _texts(branch)


def _prompt(world: World, rng: np.random.Generator) -> Any:
    """A prompt of the train split, of any skill with equal odds."""
    skill = world.prompts.skills[rng.integers(len(world.prompts.skills))]
    prompts = world.prompts.of("train", skill)
    return prompts[rng.integers(len(prompts))]


def _asked(prompt: Any, context: Scene | None) -> tuple[str | Image.Image, ...]:
    return "Prompt:\n", prompt.text, *(("\nContext:", render(context)) if context else ())


def _shown(candidate: Scene | Clip | str, rng: np.random.Generator) -> Image.Image | Frames | str:
    if isinstance(candidate, Clip):
        return tuple(_compressed(frame) for frame in frames(candidate))
    return render(candidate) if isinstance(candidate, Scene) else candidate


def _compressed(image: Image.Image) -> Image.Image:
    """With the colors of neighbouring pixels mixed, as a video file has them."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return Image.open(file)
