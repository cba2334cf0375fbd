"""What the viewer is taught to know at the tokens of pictures and sentences, where an answer looks for it.

So it learns to compare a picture with its source, or a sentence with its picture, several times sooner than
from answers alone.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from PIL import Image

from data_recipes.shapes import edits, questions
from data_recipes.shapes.captioner.dialogue import Marked
from data_recipes.shapes.captioner.lessons import NUMBERS
from data_recipes.shapes.claims import Before, Noun, Seen, seen_in
from data_recipes.shapes.edits import Edit
from data_recipes.shapes.questions import Part, Question
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import GRID, Scene

__all__ = ["again", "answer", "context", "ended", "result"]

_SIDES = {"x": ("left", "right"), "y": ("above", "below")}
_YES_NO = (" no", " yes")


def context(nouns: Iterable[Noun], scene: Scene) -> Marked:
    """A picture: of each thing, whether one of the nouns names it."""
    names = tuple(nouns)
    things = zip(scene.shapes, seen_in(scene), strict=True)
    named = {(s.x, s.y): any(noun.among([seen]) for noun in names) for s, seen in things}
    return _by_cell(scene, {cell: (_YES_NO[each],) for cell, each in named.items()})


def result(edit: Edit, source: Scene, scene: Scene) -> Marked:
    """An edited picture: of each cell that shows something or did, whether it is as it should be, and the
    color and kind that should be there, or "none".
    """
    shown = {(s.x, s.y): Noun(kind=s.kind, color=s.color) for s in scene.shapes}
    wanted = edits.wanted(edit, source, scene).items()
    return _by_cell(scene, {c: (_YES_NO[shown.get(c) == noun], *_look(noun)) for c, noun in wanted})


def _look(noun: Noun | None) -> tuple[str, ...]:
    return (f" {NUMBERS[0]}",) if noun is None else (f" {noun.color}", f" {noun.kind}")


def _by_cell(scene: Scene, words: dict[tuple[int, int], tuple[str, ...]]) -> Marked:
    """A picture with marks in its cells, each of which is one token."""
    return Marked(render(scene), tuple(words.get((x, y), ()) for y, x in product(range(GRID), repeat=2)))


def answer(question: Question, scene: Scene, text: str) -> Iterator[Marked]:
    """The sentences of an answer: whether each is true, and what is."""
    seen = seen_in(scene)
    for sentence in re.findall(r"[^.]+\.", text):
        (said,) = questions.read_answer(sentence)
        (part,) = (part for part in question.parts if said in part.answers)
        yield Marked(sentence, ((_YES_NO[said.holds(seen)], _truth(part, sentence, seen)),))


def _truth(part: Part, sentence: str, seen: Sequence[Seen]) -> str:
    """A number or a color; of two things, the side of the other on which the one is that is said first."""
    if part.second:
        one, other = sorted(part.nouns, key=lambda noun: sentence.lower().index(noun.kind))
        return f" {_SIDES[part.axis][not Before(first=one, second=other, axis=part.axis).holds(seen)]}"
    things = part.noun.among(seen)
    return f" {things[0].color if part.skill == 'color' else NUMBERS[len(things)]}"


def ended(part: str | Image.Image | Marked, verdicts: Sequence[bool]) -> Marked:
    """A part whose last token tells how many claims do not hold, up to five.

    Without a space these numbers are other tokens than those of what pictures show.
    """
    missed = NUMBERS[min(verdicts.count(False), len(NUMBERS) - 1)]
    if not isinstance(part, Marked):
        part = Marked(part, ((),) * (1 if isinstance(part, str) else GRID * GRID))
    if isinstance(part.part, str):
        (words,) = part.marks
        return Marked(part.part, ((*words, missed),))
    return Marked(part.part, (*part.marks, (missed,)))


def again(prompt: Any, verdicts: Sequence[bool]) -> Iterator[Marked]:
    """A prompt that is read after a candidate: each part of a question tells if it is answered rightly."""
    rest = prompt.text
    if isinstance(prompt, Question):
        texts = (prompt.parts[0].text, f", and {prompt.parts[1].text}")
        yield from (Marked(text, ((_YES_NO[right],),)) for text, right in zip(texts, verdicts, strict=True))
        rest = "?"
    yield ended(rest, verdicts)
