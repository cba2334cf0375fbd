"""The protocols of judges that answer questions about one image, in words or by a probability, and fakes.

A scorer compares candidates; these say what holds of one. Imports no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = [
    "FakeGenerator",
    "FakeYesNo",
    "Generated",
    "Generator",
    "ImageQuestion",
    "Probability",
    "YesNoJudge",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuestion:
    """A text about an encoded image."""

    text: str
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The text of an answer; `reason` says why there is none, and is empty if there is one."""

    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probability:
    """P(yes) in [0, 1]; NaN where it is not known, and why."""

    value: float
    reason: str = ""


@runtime_checkable
class Generator(Protocol):
    """A generative judge: it answers in words."""

    def generate(self, questions: Sequence[ImageQuestion], *, attempt: int = 0) -> list[Generated]:
        """One answer for each question, in order. From the second attempt (1) on, another sample.

        Raises:
            ScoringError: the judge could not be reached, or is not ready.
        """
        ...

    def identity(self) -> str:
        """The judge and its settings, equal where answers are alike."""
        ...


@runtime_checkable
class YesNoJudge(Protocol):
    """A judge that says whether an image shows what a text says."""

    def probabilities(self, questions: Sequence[ImageQuestion]) -> list[Probability]:
        """One probability for each question, in order.

        Raises:
            ScoringError: the judge could not be reached, or is not ready.
        """
        ...

    def identity(self) -> str:
        """The judge and its settings, equal where probabilities are alike."""
        ...


class FakeGenerator:
    """A generative judge without a model, for tests and examples: `answer` maps (text, image, attempt)."""

    def __init__(self, answer: Callable[[str, bytes, int], str]) -> None:
        self._answer = answer

    def generate(self, questions: Sequence[ImageQuestion], *, attempt: int = 0) -> list[Generated]:
        """As in the protocol."""
        return [Generated(text=self._answer(one.text, one.image, attempt)) for one in questions]

    def identity(self) -> str:
        """Always the same."""
        return "fake generator"


class FakeYesNo:
    """A yes-or-no judge without a model, for tests and examples: `yes` maps (text, image) to P(yes)."""

    def __init__(self, yes: Callable[[str, bytes], float]) -> None:
        self._yes = yes

    def probabilities(self, questions: Sequence[ImageQuestion]) -> list[Probability]:
        """As in the protocol."""
        return [Probability(value=self._yes(one.text, one.image)) for one in questions]

    def identity(self) -> str:
        """Always the same."""
        return "fake yes or no"
