"""The world of questions: a picture and a question of two parts; candidates are answers in English.

An answer is a sentence for each part, a claim about the picture in one of several phrasings of different
length: how long an answer is does not tell how good it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations, product

import numpy as np

from data_recipes.shapes.claims import Axis, Before, Claim, Count, Exists, Noun, Seen, seen_in
from data_recipes.shapes.definition import Drawn, World
from data_recipes.shapes.prompt_set import PromptSet
from data_recipes.shapes.prompts import indefinite
from data_recipes.shapes.recipe import recipe_of
from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, Scene, Shape

__all__ = [
    "RECIPE",
    "WORLD",
    "Part",
    "Question",
    "Says",
    "answer",
    "draw_picture",
    "phrase",
    "read_answer",
    "say",
    "sentences",
]

_SKILLS = ("count", "color", "exists", "relation")
_NUMBERS = ("no", "one", "two", "three", "four", "five")
_MOST = 3  # of what is counted
_RIGHT = 0.55  # probability that a part is answered rightly

Statement = Claim
"""A sentence of an answer: the claim that it makes about the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """One of the statements is this one."""

    statement: Statement

    def holds(self, said: Sequence[Statement]) -> bool:
        return self.statement in said


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that is asked: "count", "color", "exists" or "relation" of a noun.

    Attributes:
        axis: of a relation.
        second: the other thing of a relation.
    """

    skill: str
    noun: Noun
    axis: Axis = "x"
    second: Noun | None = None

    @property
    def nouns(self) -> tuple[Noun, ...]:
        """The things that it names."""
        return (self.noun, self.second) if self.second else (self.noun,)

    @property
    def text(self) -> str:
        """The question in English."""
        noun = _words(self.noun)
        match self.skill:
            case "count":
                return f"how many {noun}s are there"
            case "color":
                return f"what color is the {noun}"
            case "exists":
                return f"is there a {noun}"
        assert self.second is not None
        relation = "left or right of" if self.axis == "x" else "above or below"
        return f"is the {noun} {relation} the {_words(self.second)}"

    @property
    def answers(self) -> tuple[Statement, ...]:
        """Every answer; of a picture to which the question applies, one is true."""
        match self.skill:
            case "count":
                return tuple(Count(noun=self.noun, n=n) for n in range(_MOST + 1))
            case "color":
                return tuple(Exists(noun=Noun(kind=self.noun.kind, color=color)) for color in COLORS)
            case "exists":
                return (Exists(noun=self.noun), Count(noun=self.noun, n=0))
        assert self.second is not None
        pairs = ((self.noun, self.second), (self.second, self.noun))
        return tuple(Before(first=a, second=b, axis=self.axis) for a, b in pairs)

    def applies(self, seen: Sequence[Seen]) -> bool:
        """Whether the picture shows one of each thing that the question takes for granted."""
        if self.skill in ("count", "exists"):
            return len(self.noun.among(seen)) <= _MOST
        return all(len(noun.among(seen)) == 1 for noun in self.nouns) and any(
            answer.holds(seen) for answer in self.answers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt: two parts about different kinds of things."""

    parts: tuple[Part, Part]

    @property
    def skill(self) -> str:
        """That of the first part."""
        return self.parts[0].skill

    @property
    def text(self) -> str:
        """The question in English."""
        return f"{', and '.join(part.text for part in self.parts)}?"

    @property
    def meaning(self) -> str:
        """The same in any order."""
        return " & ".join(sorted(part.text for part in self.parts))


def _parts(skill: str) -> Iterator[Part]:
    nouns = [Noun(kind=kind) for kind in SHAPES]
    colored = [Noun(kind=kind, color=color) for kind, color in product(SHAPES, COLORS)]
    match skill:
        case "color":
            yield from (Part(skill=skill, noun=noun) for noun in nouns)
        case "relation":
            for (noun, second), axis in product(permutations(nouns, 2), _AXES):
                yield Part(skill=skill, noun=noun, axis=axis, second=second)
        case _:
            yield from (Part(skill=skill, noun=noun) for noun in (*nouns, *colored))


def _questions(skill: str) -> Iterator[Question]:
    """Those whose first part is of the skill and the second of another."""
    seconds = [part for other_skill in _SKILLS if other_skill != skill for part in _parts(other_skill)]
    for parts in product(_parts(skill), seconds):
        kinds = [noun.kind for part in parts for noun in part.nouns]
        if len(set(kinds)) == len(kinds):
            yield Question(parts=parts)


def draw_picture(question: Question, rng: np.random.Generator) -> Scene:
    """A scene to which both parts apply."""
    while True:
        looks = [noun for part in question.parts for noun in _shown(part, rng)]
        looks += [Noun(kind=SHAPES[rng.integers(len(SHAPES))]) for _ in range(rng.integers(3))]
        cells = rng.choice(GRID * GRID, size=len(looks), replace=False)
        if not 1 <= len(looks) <= MAX_SHAPES:
            continue
        scene = Scene(
            shapes=tuple(
                Shape(
                    kind=noun.kind,
                    color=noun.color or COLORS[rng.integers(len(COLORS))],
                    x=int(cell) % GRID,
                    y=int(cell) // GRID,
                )
                for noun, cell in zip(looks, cells, strict=True)
            )
        )
        if all(part.applies(seen_in(scene)) for part in question.parts):
            return scene


def _shown(part: Part, rng: np.random.Generator) -> list[Noun]:
    """Things for a picture that the question is about."""
    if part.skill == "count":
        return [part.noun] * int(rng.integers(_MOST + 1))
    return list(part.nouns) if part.skill != "exists" or rng.random() < 0.5 else []


def say(statement: Statement) -> tuple[str, ...]:
    """The phrasings of a statement, from short to long, without capitals and periods."""
    match statement:
        case Count(noun=noun, n=n):
            things = f"{_NUMBERS[n]} {_words(noun)}{'' if n == 1 else 's'}"
            return _phrasings(things, "is" if n == 1 else "are")
        case Exists(noun=noun):
            return _phrasings(indefinite(noun))
        case Before(first=first, second=second, axis=axis):
            (before, after), (a, b) = _RELATIONS[axis], (indefinite(noun) for noun in (first, second))
            return (*_phrasings(f"{a} {before} {b}"), *_phrasings(f"{b} {after} {a}"))
    raise AssertionError(statement)


def _phrasings(things: str, be: str = "is") -> tuple[str, ...]:
    there = f"there {be} {things}"
    return things, there, f"{there} in the picture", f"i can see {things} in the picture"


_AXES: tuple[Axis, ...] = ("x", "y")
_RELATIONS = {"x": ("left of", "right of"), "y": ("above", "below")}


def _words(noun: Noun) -> str:
    return f"{noun.color} {noun.kind}" if noun.color else noun.kind


@cache
def _all_parts() -> tuple[Part, ...]:
    return tuple(part for skill in _SKILLS for part in _parts(skill))


@cache
def _by_phrase() -> dict[str, Statement]:
    return {phrase: answer for part in _all_parts() for answer in part.answers for phrase in say(answer)}


def read_answer(text: str) -> tuple[Statement, ...]:
    """The statements of an answer; a sentence that is none is not counted."""
    said = (" ".join(sentence.lower().split()) for sentence in text.split("."))
    return tuple(_by_phrase()[sentence] for sentence in said if sentence in _by_phrase())


def _claims(question: Question, criterion: str, seen: Sequence[Seen]) -> list[Says]:
    """Each part is answered rightly."""
    return [
        Says(statement=statement)
        for part in question.parts
        for statement in part.answers
        if statement.holds(seen)
    ]


def _draw_answer(question: Question, seen: Sequence[Seen], rng: np.random.Generator) -> str:
    said = [answer(part, seen, bool(rng.random() < _RIGHT), rng) for part in question.parts]
    return sentences(phrase(statement, rng) for statement in said)


def sentences(phrases: Iterable[str]) -> str:
    """An answer of these phrases."""
    return " ".join(f"{phrase.capitalize()}." for phrase in phrases)


def answer(part: Part, seen: Sequence[Seen], true: bool, rng: np.random.Generator) -> Statement:
    answers = [answer for answer in part.answers if answer.holds(seen) == true]
    return answers[rng.integers(len(answers))]


def phrase(statement: Statement, rng: np.random.Generator) -> str:
    phrases = say(statement)
    return phrases[rng.integers(len(phrases))]


def _draw(question: Question, k: int, rng: np.random.Generator) -> Drawn:
    scene = draw_picture(question, rng)
    seen = seen_in(scene)
    return Drawn(context=scene, candidates=tuple(_draw_answer(question, seen, rng) for _ in range(k)))


WORLD = World(
    name="shapes-questions",
    summary="questions about pictures of colored shapes and answers to them, nothing to download",
    prompts=PromptSet("shapes-questions", {skill: partial(_questions, skill) for skill in _SKILLS}),
    draw=_draw,
    claims=_claims,
    see=read_answer,
    encode=str,
    read=read_answer,
    note=None,
)
RECIPE = recipe_of(WORLD)
