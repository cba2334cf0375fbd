"""The prompts of a world: enumerated, so that they can be parsed and divided between splits.

Knows nothing of what a prompt asks for.
"""

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np

from prefrm.errors import DataError
from prefrm.records import SPLITS

__all__ = ["PromptError", "PromptSet", "PromptText"]

_HELD_OUT = {"validation": 0.1, "test": 0.2}  # shares of each skill's meanings


class PromptError(DataError):
    """A text is not a prompt of this world."""


class PromptText(Protocol):
    """A prompt of any world."""

    @property
    def text(self) -> str: ...
    @property
    def skill(self) -> str: ...
    @property
    def meaning(self) -> str:
        """Equal for prompts that ask for the same in another order or wording."""
        ...


P = TypeVar("P", bound=PromptText)


class PromptSet(Generic[P]):
    """Every prompt of a world.

    Args:
        world: its name, for errors.
        skills: each skill with a function that lists its prompts in a fixed order; texts are unique.
    """

    def __init__(self, world: str, skills: Mapping[str, Callable[[], Iterable[P]]]) -> None:
        self._world = world
        self._list = skills
        self.skills = tuple(skills)
        self._of: dict[tuple[str, str], tuple[P, ...]] = {}

    @cached_property
    def _of_skill(self) -> dict[str, tuple[P, ...]]:
        return {skill: tuple(listed()) for skill, listed in self._list.items()}

    def all(self, skill: str | None = None) -> tuple[P, ...]:
        """Every prompt of a skill, or of the world, in a fixed order."""
        if skill is None:
            return tuple(prompt for each in self.skills for prompt in self.all(each))
        if skill not in self._list:
            raise PromptError(f"unknown skill {skill!r}; it must be one of {', '.join(self.skills)}")
        return self._of_skill[skill]

    def sample(self, rng: np.random.Generator, skill: str) -> P:
        """A prompt of the skill, each as likely as the others."""
        prompts = self.all(skill)
        return prompts[int(rng.integers(len(prompts)))]

    def parse(self, text: str) -> P:
        """The prompt that a text is; case, extra spaces and a final period do not matter.

        Raises:
            PromptError: it is not a prompt of this world; the nearest one is named.
        """
        plain = " ".join(text.lower().split()).removesuffix(".")
        if prompt := self._by_text.get(plain):
            return prompt
        nearest = difflib.get_close_matches(plain[:100], self._by_text, n=1, cutoff=0.0)[0]
        raise PromptError(
            f"{text[:100]!r} is not a prompt of the {self._world} world; the nearest one is {nearest!r}"
        )

    def split(self, split: str) -> tuple[P, ...]:
        """The prompts of "train", "validation" or "test": fixed for good, and the same share of every skill.

        Prompts of one meaning share a split, so a held-out prompt is not a trained one turned around.
        """
        if split not in self._splits:
            raise PromptError(f"unknown split {split!r}; it must be train, {' or '.join(_HELD_OUT)}")
        return self._splits[split]

    def of(self, split: str, skill: str) -> tuple[P, ...]:
        """The prompts of a split that test a skill."""
        if (split, skill) not in self._of:
            self._of[split, skill] = tuple(prompt for prompt in self.split(split) if prompt.skill == skill)
        return self._of[split, skill]

    def deck(self, split: str, skill: str, seed: int) -> list[P]:
        """The skill's prompts of a split, in an order that the seed shuffles."""
        prompts = list(self.of(split, skill))
        np.random.default_rng([seed, SPLITS.index(split)]).shuffle(prompts)
        return prompts

    @cached_property
    def _by_text(self) -> dict[str, P]:
        return {prompt.text: prompt for prompt in self.all()}

    @cached_property
    def _splits(self) -> dict[str, tuple[P, ...]]:
        """Stratified by skill; the order within a skill is by hash."""
        home: dict[str, str] = {}
        for skill in self.skills:
            meanings = {prompt.meaning for prompt in self.all(skill)}
            ordered = sorted(meanings, key=lambda m: hashlib.sha256(m.encode()).digest())
            start = 0
            for split, share in _HELD_OUT.items():
                stop = start + max(1, round(share * len(ordered)))
                home |= dict.fromkeys(ordered[start:stop], split)
                start = stop
            home |= dict.fromkeys(ordered[start:], "train")
        return {
            split: tuple(prompt for prompt in self.all() if home[prompt.meaning] == split)
            for split in ("train", *_HELD_OUT)
        }
