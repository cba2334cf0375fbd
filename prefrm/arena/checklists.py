"""Checklists: a judge says of each image which of its prompt's checks hold.

A generative judge is asked once for an image, about all of its checks, and again where its answer cannot be
read (`Checklist`), as UniGenBench (arXiv 2510.18701) does. A judge that answers yes or no is asked once for
each check, and its probabilities are the verdicts (`YesNoChecks`), as in Soft-TIFA (arXiv 2512.16853).

The wording is prefrm's own. It asks for the form of an answer that UniGenBench's published judges are trained
to give, but not in their words: for those, `read_wording` takes a file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from prefrm.arena.checked import CheckedImage
from prefrm.arena.definitions import DEFINITIONS
from prefrm.arena.values import ArenaPrompt, Check
from prefrm.errors import ConfigError
from prefrm.media import digest
from prefrm.prompts.files import read_text
from prefrm.questions import Generated, Generator, ImageQuestion, YesNoJudge

__all__ = [
    "ATTEMPTS",
    "ONE_BY_ONE",
    "WORDING",
    "CheckJudge",
    "Checklist",
    "ImageToCheck",
    "YesNoChecks",
    "in_own_words",
    "read_wording",
]

ATTEMPTS = 10
"""Answers for an image until one can be read, as UniGenBench's script asks for."""
ONE_BY_ONE = ", each check"
"""End of the identity of a judge that is asked about each check by itself."""
SHOWN = 200
"""Characters of an answer that a reason quotes."""
WORDING = """\
An image was generated for this prompt: 「{prompt}」

Say of each checkpoint whether the image satisfies it. The checkpoints, with their parts of the prompt:
{checks}
{definitions}
Judge by what can be seen in the image alone. Do not guess at what it leaves open, nor give credit for what \
is only suggested. For each checkpoint, first describe in a sentence what the image shows of it, then score \
it: 1 if the image satisfies it, 0 if it does not.

Answer in exactly this form. Both lists have {count} items, in the order of the checkpoints.

<description>
<analysis>["what the image shows of the first checkpoint", ...]</analysis>
<score>[0 or 1, ...]</score>
</description>"""
PLACEHOLDER = re.compile(r"\{(prompt|checks|points|definitions|descriptions|count)\}")
SCORES = re.compile(r"<score>(.*?)</score>", re.DOTALL | re.IGNORECASE)
BINARY = re.compile(r"\[\s*(['\"]?[01]['\"]?\s*(?:,\s*['\"]?[01]['\"]?\s*)*),?\s*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToCheck:
    """An encoded image, its prompt, and its number among the images that its model made of the prompt."""

    prompt: ArenaPrompt
    image: int
    data: bytes


@runtime_checkable
class CheckJudge(Protocol):
    """Gives verdicts on the checks of images."""

    def check(self, images: Sequence[ImageToCheck]) -> list[CheckedImage]:
        """One result for each image, in order; an image of a prompt without checks cannot be among them.

        Raises:
            ScoringError: the judge could not be reached, or is not ready.
        """
        ...

    def identity(self) -> str:
        """The judge, its settings and the digest of the wording."""
        ...


class Checklist:
    """Asks a generative judge about all checks of an image at once.

    Args:
        generator: that is asked.
        wording: with `{prompt}` and `{checks}`, as `read_wording` describes.
        attempts: answers for an image until one can be read.
        definitions: point -> its meaning; of the points of a prompt, those that are known are told.

    Raises:
        ConfigError: the wording lacks a placeholder.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        wording: str = WORDING,
        attempts: int = ATTEMPTS,
        definitions: Mapping[str, str] = DEFINITIONS,
    ) -> None:
        self._generator, self._attempts = generator, attempts
        self._wording, self._definitions = _checked_wording(wording, "the wording"), definitions

    def identity(self) -> str:
        """The judge's, with the number of attempts and the digest of the wording."""
        told = _told(self._wording, self._definitions)
        return f"{self._generator.identity()}, {told}, attempts {self._attempts}"

    def question(self, prompt: ArenaPrompt) -> str:
        """What the judge is asked about an image of a prompt."""
        points = [_point(check) for check in prompt.checks]
        known = [
            f"{point}: {self._definitions[point]}"
            for point in dict.fromkeys(points)
            if point in self._definitions
        ]
        values = {
            "prompt": prompt.text,
            "checks": "\n".join(f"{n}. {_point(c)}: {_described(c)}" for n, c in enumerate(prompt.checks, 1)),
            "points": repr(points),
            "definitions": "\n".join(["\nThe kinds of checkpoints:", *known, ""] if known else []),
            "descriptions": "\n".join(f"{_point(c)}: {_described(c)}" for c in prompt.checks),
            "count": str(len(points)),
        }
        return PLACEHOLDER.sub(lambda found: values[found[1]], self._wording)

    def check(self, images: Sequence[ImageToCheck]) -> list[CheckedImage]:
        """As in the protocol; an image whose answers cannot be read has the reason of the last one."""
        found: list[CheckedImage] = [
            CheckedImage(prompt=one.prompt.id, image=one.image, asked=0) for one in images
        ]
        waiting = list(range(len(images)))
        for attempt in range(self._attempts):
            if not waiting:
                break
            questions = [
                ImageQuestion(text=self.question(images[n].prompt), image=images[n].data) for n in waiting
            ]
            answers = self._generator.generate(questions, attempt=attempt)
            again = []
            for n, answer in zip(waiting, answers, strict=True):
                verdicts, reason = _read(answer, len(images[n].prompt.checks))
                found[n] = replace(found[n], verdicts=verdicts, reason=reason, asked=attempt + 1)
                # What the judge refuses, it refuses again.
                if not verdicts and not answer.reason:
                    again.append(n)
            waiting = again
        return found


class YesNoChecks:
    """Asks a judge about each check of an image whether the image shows it."""

    def __init__(self, judge: YesNoJudge) -> None:
        self._judge = judge

    def identity(self) -> str:
        """The judge's."""
        return f"{self._judge.identity()}{ONE_BY_ONE}"

    def check(self, images: Sequence[ImageToCheck]) -> list[CheckedImage]:
        """As in the protocol; an image has no verdicts if one of them is not known."""
        questions = [
            ImageQuestion(text=_statement(check, one.prompt), image=one.data)
            for one in images
            for check in one.prompt.checks
        ]
        answers = iter(self._judge.probabilities(questions))
        found = []
        for one in images:
            own = [next(answers) for _ in one.prompt.checks]
            reason = next(
                (answer.reason or "P(yes) is NaN" for answer in own if answer.value != answer.value), ""
            )
            verdicts = () if reason else tuple(answer.value for answer in own)
            found.append(
                CheckedImage(
                    prompt=one.prompt.id, image=one.image, verdicts=verdicts, reason=reason, asked=len(own)
                )
            )
        return found


def _statement(check: Check, prompt: ArenaPrompt) -> str:
    """What an image shows of which a check holds; without a description, the whole prompt."""
    if check.question.endswith("?"):
        return f'The answer to "{check.question}" is {check.answer}.'
    return check.question or prompt.text


def in_own_words(identity: str) -> bool:
    """Whether a judge of checklists with this identity was asked in another wording than prefrm's."""
    return "checklist " in identity and _told(WORDING, DEFINITIONS) not in identity


def read_wording(path: Path) -> str:
    """The wording of a checklist in a text file.

    `{prompt}` is the prompt and `{checks}` a numbered line for each check: its point, such as "Attribute -
    Size", and its description or question. Instead of `{checks}`, `{points}` and `{descriptions}` have the
    list of points and a line for each description. `{definitions}` explains the points, and `{count}` is
    their number. Other braces are literal. The answer has `<score>[...]</score>` with a 0 or 1 for each.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or lacks a placeholder.
    """
    return _checked_wording(read_text(path), str(path))


def _checked_wording(text: str, name: str) -> str:
    given = set(PLACEHOLDER.findall(text))
    if "prompt" not in given or not ({"checks"} <= given or {"points", "descriptions"} <= given):
        raise ConfigError(
            f"{name} needs {{prompt}}, and {{checks}} or both {{points}} and {{descriptions}}; received "
            f"{', '.join(sorted(given)) or 'no placeholder'}"
        )
    return text


def _told(wording: str, definitions: Mapping[str, str]) -> str:
    return f"checklist {digest(repr((wording, sorted(definitions.items()))).encode())}"


def _point(check: Check) -> str:
    return check.subdimension or check.dimension


def _described(check: Check) -> str:
    question = check.question or "as the prompt says"
    return f"{question} ({check.answer})" if question.endswith("?") else question


def _read(answer: Generated, count: int) -> tuple[tuple[float, ...], str]:
    """The verdicts of an answer, and "" or why there are none."""
    if answer.reason:
        return (), answer.reason
    lists = SCORES.findall(answer.text)
    # A judge that repeats the form of the answer gives its own last.
    found = BINARY.fullmatch(lists[-1].strip()) if lists else None
    if found is None:
        return (), f"the answer has no list of 0 and 1 in <score>: {_quoted(answer.text)}"
    verdicts = tuple(float(one) for one in re.findall("[01]", found[1]))
    if len(verdicts) != count:
        return (), f"the answer has {len(verdicts)} scores for {count} checks"
    return verdicts, ""


def _quoted(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}...")
