"""Dialects of pairwise chat prompts: where the caption stands, and the words of the answer.

Published clients (UnifiedReward 1.0, 2.0, Think and Flex; Pref-GRPO, which uses Think and Flex) put a caption
into a long instruction and parse a sentence, a tag or JSON out of the answer. A dialect knows only the marks
around the caption and what those parsers look for. A caption may hold any text, the marks included: a mark
counts outside it alone. prefrm's own `ChatScorer` asks in wordings that it has as data; a question in one of
them is understood word for word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Template as Form
from typing import Any, Literal

from prefrm.errors import ConfigError
from prefrm.prompts import Template
from prefrm.scorers import chat
from serving.errors import InvalidRequestError

__all__ = ["DIALECTS", "Dialect", "dialect_of", "recognise"]

IMAGE_1, IMAGE_2, BOTH = "Image 1 is better", "Image 2 is better", "Both images are equally good"
# Of an opening, where a message quotes its end.
SHOWN = 20
# Of a probability after the point: those of float32 near 1, and more.
DIGITS = 9
CAPTION, CRITERION = "\0", "\1"
"""They stand for a caption and a criterion, where their places are looked for."""
Closes = Literal["the text", "last"]
"""Which `closing` ends a caption: that at the end of the text, or the last one after `opening`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The form of a pairwise question and of its answer.

    Attributes:
        name: for people.
        opening: the text before the caption; its first occurrence counts.
        closing: the text after it.
        closes: which occurrence of `closing` counts. At the end of the text, white space may follow.
        before: the last `closing` before the last occurrence of this counts; "" if it may stand anywhere.
        sign: occurs in the text outside the caption; "" if nothing needs to.
        first: the answer if image 1 is better. In all three, `$first` and `$second` stand for the
            probabilities of the two images, a tie counting half to each.
        second: if image 2 is.
        tie: if neither is; "" if there is no such answer.
        by: the whole of a text around a criterion, with `CAPTION` for the caption; "" twice if a question has
            no place for one.
    """

    name: str
    opening: str = "Text Caption: ["
    closing: str = "]"
    closes: Closes = "the text"
    before: str = ""
    sign: str = ""
    first: str
    second: str
    tie: str = ""
    by: tuple[str, str] = ("", "")

    def caption(self, texts: Sequence[str]) -> str | None:
        """The caption in the texts of a question, or None if the question is of another dialect."""
        for n, text in enumerate(texts):
            start = text.find(self.opening) + len(self.opening)
            end = self._end(text, start)
            if len(self.opening) <= start <= end:
                outside = (*texts[:n], text[:start], text[end:], *texts[n + 1 :])
                return text[start:end] if any(self.sign in part for part in outside) else None
        return None

    def criterion(self, texts: Sequence[str], caption: str) -> str:
        """What the images are compared by in the texts of a question with that caption; "" if it has none."""
        start, end = (part.replace(CAPTION, caption) for part in self.by)
        found = (text for text in texts if start and text.startswith(start) and text.endswith(end))
        return next((text[len(start) : len(text) - len(end)] for text in found), "")

    def answers(self, p: float) -> tuple[str, str, str]:
        """The answers for image 1, image 2 and a tie, where image 1 is preferred with probability p."""
        shares = {"first": f"{p:.{DIGITS}f}", "second": f"{1 - p:.{DIGITS}f}"}
        first, second, tie = (
            Form(answer).substitute(shares) for answer in (self.first, self.second, self.tie)
        )
        return first, second, tie

    def _end(self, text: str, start: int) -> int:
        if self.closes == "last":
            most = text.rfind(self.before, start) if self.before else len(text)
            return text.rfind(self.closing, start, most) if most >= 0 else -1
        closing = self.closing.rstrip()
        text = text.rstrip() if closing else text
        return len(text) - len(closing) if text.endswith(closing) else -1


THINK = Dialect(
    name="UnifiedReward-Think",
    sign="<answer>",
    first=f"<answer>{IMAGE_1}</answer>",
    second=f"<answer>{IMAGE_2}</answer>",
    tie=f"<answer>{BOTH}</answer>",
)
# One preference in place of three: the judge has no others.
SCORES = "\n\n".join(
    f"{dimension} Score:\n Image 1: $first\n Image 2: $second"
    for dimension in ("Alignment", "Coherence", "Style")
)

FLEX = Dialect(
    name="UnifiedReward-Flex",
    opening="**Prompt:** [",
    closing="]\n\n",
    closes="last",
    before="[Image 1]",
    sign='"winner"',
    first='{"categories": [], "winner": "Image 1"}',
    second='{"categories": [], "winner": "Image 2"}',
    tie='{"categories": [], "winner": "tie"}',
)

RANK = Dialect(name="UnifiedReward rank", first=f"{IMAGE_1}.", second=f"{IMAGE_2}.", tie=f"{BOTH}.")
PAIR_SCORE = Dialect(
    name="UnifiedReward 2.0 pair score", sign="Alignment Score:", first=SCORES, second=SCORES, tie=SCORES
)


def _own(name: str, like: Dialect) -> Dialect:
    """The dialect of prefrm's own wording of that name, with the answers of another.

    A tie that prefrm's client does not read counts half to each.
    """
    asked = chat.DIALECTS[name]
    turns = asked.wording.messages(CAPTION, ["", ""])
    texts = next(texts for texts in map(_texts, turns) if any(CAPTION in text for text in texts))
    opening, closing = next(text for text in texts if CAPTION in text).split(CAPTION)[:2]
    asking = asked.wording.messages(CAPTION, ["", ""], criterion=CRITERION)
    by = [text for turn in asking for text in _texts(turn) if CRITERION in text]
    before, after = by[0].split(CRITERION) if by else ("", "")
    others = [part for text in texts for part in text.split(CAPTION) if part not in (opening, closing)]
    return replace(
        like,
        name=f"{name} in prefrm's words",
        opening=opening,
        closing=closing,
        closes="the text",
        before="",
        sign=max(others, key=len, default=""),
        tie=like.tie if asked.ties or like is PAIR_SCORE else "",
        by=(before, after),
    )


def _texts(message: Mapping[str, Any]) -> list[str]:
    """Those of a message, with "" for each image."""
    content = message["content"]
    return [content] if isinstance(content, str) else [item.get("text", "") for item in content]


DIALECTS: tuple[Dialect, ...] = (
    _own("plain", Dialect(name="", first="1", second="2")),
    _own("unifiedreward-rank", RANK),
    _own("unifiedreward-pair-score", PAIR_SCORE),
    _own("unifiedreward-think", THINK),
    _own("unifiedreward-flex", FLEX),
    _own("lightrft", replace(THINK, tie="<answer>Both are equally good</answer>")),
    THINK,
    PAIR_SCORE,
    RANK,
    FLEX,
    replace(THINK, name="UnifiedReward-Think (Qwen3-VL)", opening="\u300c", closing="\u300d", closes="last"),
)
"""prefrm's own and those of the published clients, in the order in which a question is held against them.

Source: the repositories UnifiedReward and Pref-GRPO of CodeGoat24, 2026-06. Flex's categories are empty, and
Pref-GRPO then takes the overall winner alone: the judge has one preference and invents no others.
"""


def dialect_of(template: Template) -> Dialect:
    """The dialect of questions in a template's wording.

    Raises:
        ConfigError: the template does not ask about two images at once, or any text would be its prompt.
    """
    if template.attention != "joint":
        raise ConfigError(
            f"chat template {template.id!r} must show two images and end with {{answer}} and two or three "
            f"answers; received {template.candidates} images and {len(template.answers)} answers"
        )
    (turn,) = template.messages(CAPTION, context=int(template.needs_context))
    texts = _texts(turn)
    opening, closing = next(text for text in texts if CAPTION in text).split(CAPTION)[:2]
    sign = "" if template.images_first else texts[-1].split(CAPTION)[-1]
    if not (opening.strip() or closing.strip()):
        raise ConfigError(f"chat template {template.id!r} has no text beside its prompt; add some")
    # A dollar sign would stand for a probability.
    answers = [(template.answer_prefix + one[0]).replace("$", "$$") for one in template.spellings]
    return Dialect(
        name=template.id,
        opening=opening,
        closing=closing,
        closes="the text",
        sign=sign.strip(),
        first=answers[0],
        second=answers[1],
        tie=answers[2] if template.ties else "",
    )


def recognise(texts: Sequence[str], dialects: Sequence[Dialect] = DIALECTS) -> tuple[Dialect, str]:
    """The dialect of a question, and its caption.

    Args:
        texts: of all messages, in order.
        dialects: held against them in turn.

    Raises:
        InvalidRequestError: it is none of `dialects`.
    """
    for dialect in dialects:
        if (caption := dialect.caption(texts)) is not None:
            return dialect, caption
    known = ", ".join(dict.fromkeys(repr(dialect.opening[-SHOWN:]) for dialect in dialects))
    raise InvalidRequestError(
        f"messages: no caption was found in {sum(map(len, texts))} characters; end a text with "
        f"'Text Caption: [...]', or use the prompt of a known client, in which it follows one of {known}"
    )
