"""Templates as data: what a judge is asked, and what a base model's chat template makes of it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefrm.errors import ConfigError
from prefrm.prompts import places
from prefrm.prompts.places import (
    CANDIDATE,
    CLOSE,
    CONTEXT,
    CRITERION,
    MARK,
    OPEN,
    PROMPT,
    SUFFIX,
    Piece,
    cut,
    mark,
    readable,
)

__all__ = ["NOUN", "RenderedTemplate", "Template"]

MOST_SPELLINGS = 16
"""Of an answer: each is compared with all others, and templates come from anybody's bundles."""
NOUN = "{noun}"
"""Stands for what a judge calls its candidates: "image", "video" or "answer"."""
CONTEXTS = 2
"""Context images that a chat template renders: of two, what it writes between them is known."""
ORDER = re.compile(
    f"(?:{CONTEXT}?{PROMPT}|{PROMPT}{CONTEXT}){CANDIDATE}{{1,2}}{PROMPT}?|{CONTEXT}?{CANDIDATE}{{1,2}}{PROMPT}"
)
ORDERS = (
    "{candidate}{candidate}{prompt} or {candidate}{prompt}; or a {prompt} before the candidates and perhaps "
    "one after them; with {context}, if any, before the candidates"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of one reading, and by its places the attention that it is for (`attention`).

    By default the prompt stands before the candidates, so that what precedes the first one is the same for
    all. A causal model reads that statement before it has seen a candidate; the tokens of a second one, after
    the candidates, can look at them, which small models need. Published judges are often asked with the
    prompt after the candidates alone (`images_first`).

    Attributes:
        id: name and version; a bundle records it together with the texts.
        turn: the user's turn, with `{candidate}` (or `{image}`) once or twice, `{prompt}` before or after
            the candidates or both, and perhaps `{context}` before the candidates, for any number of images
            that belong to the prompt, and `{criterion}`. A line with `{context}` or `{criterion}` and no
            other placeholder is left out where a group has none; elsewhere every group needs it.
        suffixes: of a late template, the texts that follow the turn for a candidate as first and as second
            of a comparison; both or neither with `{criterion}`.
        answers: of a question about two candidates: the answer that names the one shown first, the one
            that names the second, and, where there is a third, the one that says that neither is
            better. Of one candidate: () , or "yes" and "no" in whatever words, of which the utility is the
            log-odds. An answer may have several spellings, with `|` between them, and several tokens, of
            which the first are those of the others; of a late template it is one token.
        answer_prefix: start of the assistant's turn, which the answer continues.

    Raises:
        ConfigError: placeholders stand where none may, or there are too many or too few answers.
    """

    id: str
    turn: str
    suffixes: tuple[str, str] | None = None
    answers: tuple[str, ...] = ()
    answer_prefix: str = ""

    def __post_init__(self) -> None:
        texts = (self.turn, *(self.suffixes or ()), self.answer_prefix)
        if any(MARK.search(text) for text in texts):
            raise ConfigError(f"template {self.id!r} has private-use characters of Unicode; leave them out")
        self._check_places()
        counts = (0, 2) if self.attention == "alone" else (2, 3)
        if len(self.answers) not in counts:
            raise ConfigError(
                f"a template for attention {self.attention!r} has {' or '.join(map(str, counts))} answers; "
                f"received {len(self.answers)}"
            )

        if max(map(len, self.spellings), default=0) > MOST_SPELLINGS:
            raise ConfigError(f"an answer of template {self.id!r} has more than {MOST_SPELLINGS} spellings")

    def _check_places(self) -> None:
        order = "".join(MARK.findall(self._marked)).translate({ord(x): "" for x in OPEN + CLOSE + CRITERION})
        if not ORDER.fullmatch(order):
            received = readable(order) or "none"
            raise ConfigError(
                f"template {self.id!r} needs its placeholders in the order {ORDERS}; received {received}"
            )
        if self.suffixes is None:
            return
        if self.candidates > 1:
            raise ConfigError("a template has a second candidate or suffixes for two slots, not both")
        places = [{piece.content for piece in cut(mark(text)) if not piece.is_text} for text in self.suffixes]
        if places[0] != places[1] or not places[0] <= {CRITERION}:
            raise ConfigError(
                f"the suffixes of template {self.id!r} have {{criterion}}, in both, or no placeholder"
            )

    @property
    def _marked(self) -> str:
        return mark(self.turn)

    @property
    def _pieces(self) -> list[Piece]:
        return [piece for text in (self.turn, *(self.suffixes or ())) for piece in cut(mark(text))]

    @property
    def attention(self) -> str:
        """What candidates see of each other, as in `JudgeSpec`: "late", "joint" or "alone"."""
        if self.suffixes is not None:
            return "late"
        return "alone" if self.candidates == 1 else "joint"

    @property
    def candidates(self) -> int:
        """Number of candidates in one message."""
        return self._marked.count(CANDIDATE)

    @property
    def images_first(self) -> bool:
        """Whether the candidates stand before the prompt, which is then stated once."""
        return self._marked.index(CANDIDATE) < self._marked.index(PROMPT)

    @property
    def restates(self) -> bool:
        """Whether the prompt stands after the candidates, for the first time or again."""
        return self._marked.index(CANDIDATE) < self._marked.rindex(PROMPT)

    @property
    def has_context(self) -> bool:
        """Whether there is a place for images that belong to the prompt."""
        return any(piece.content == CONTEXT for piece in self._pieces)

    @property
    def needs_context(self) -> bool:
        """Whether every group must have such an image."""
        return Piece(CONTEXT) in self._pieces

    @property
    def has_criterion(self) -> bool:
        """Whether there is a place for a criterion."""
        return any(piece.content == CRITERION for piece in self._pieces)

    @property
    def needs_criterion(self) -> bool:
        """Whether every group must have one."""
        return Piece(CRITERION) in self._pieces

    @property
    def ties(self) -> bool:
        """Whether an answer says that neither is better."""
        return len(self.answers) == 3

    @property
    def spellings(self) -> tuple[tuple[str, ...], ...]:
        """The spellings of each answer."""
        return tuple(tuple(answer.split("|")) for answer in self.answers)

    def named(self, noun: str) -> "Template":
        """The same wording with that noun for the candidates."""

        def name(text: str) -> str:
            return text.replace(NOUN, noun)

        first, second = self.suffixes or ("", "")
        return replace(
            self,
            turn=name(self.turn),
            suffixes=(name(first), name(second)) if self.suffixes else None,
            answers=tuple(map(name, self.answers)),
            answer_prefix=name(self.answer_prefix),
        )

    def messages(
        self, prompt: str, *, context: int = 0, criterion: str = "", texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """One user turn, as every chat template of `transformers` takes it: text and image items.

        Of a late template, that of a candidate with the suffix of the first slot.

        Args:
            prompt: of the group.
            context: number of context images.
            criterion: of the group.
            texts: the candidates, if they are texts; without, they are images.
        """
        absent = ("" if context else CONTEXT) + ("" if criterion else CRITERION)
        pieces = cut(self._marked + (mark(self.suffixes[0]) if self.suffixes else ""))
        shown = iter([_text(text) for text in texts] or [IMAGE] * self.candidates)
        items: list[dict[str, Any]] = []
        for content, needs in pieces:
            if needs and needs in absent:
                continue
            match content:
                case places.PROMPT:
                    items.append(_text(prompt))
                case places.CRITERION:
                    items.append(_text(criterion))
                case places.CONTEXT:
                    items += [IMAGE] * context
                case places.CANDIDATE:
                    items.append(next(shown))
                case _:
                    items.append(_text(content))
        return _turn(items)

    @property
    def marked(self) -> str:
        """The turn with marks in its places, two of them for the context, and of a late template one for the
        suffix."""
        return self._marked.replace(CONTEXT, CONTEXT * CONTEXTS) + (SUFFIX if self.suffixes else "")

    def marked_messages(self, *, images: bool) -> list[dict[str, Any]]:
        """The marked turn, with image items in the place of the context and, with `images`, of candidates."""
        shown = CONTEXT + CANDIDATE if images else CONTEXT
        parts = re.split(f"([{shown}])", self.marked)
        return _turn(IMAGE if part and part in shown else _text(part) for part in parts)

    def marked_suffixes(self) -> list[list[Piece]]:
        """The pieces of each suffix."""
        return [cut(mark(text)) for text in self.suffixes or ()]


IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _turn(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One user turn. Neighbouring texts are one item; none is empty, which chat templates may mark."""
    content: list[dict[str, Any]] = []
    for item in items:
        if "text" in item and content and "text" in content[-1]:
            content[-1] = _text(content[-1]["text"] + item["text"])
        elif item.get("text") != "":
            content.append(item)
    return [{"role": "user", "content": content}]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedTemplate:
    """A `Template` as a base model's chat template renders it, with marks (`prefrm.prompts.places`).

    A chat template is a program of the checkpoint. It runs once, when a judge is made of a base model. A
    bundle records this text, so that nothing runs when it is loaded.

    Attributes:
        text: the conversation up to the answer, with the marks of `Template.marked`.
    """

    text: str

    def fits(self, template: Template) -> bool:
        """Whether this text has the places of the template, in the same order."""
        return MARK.findall(self.text) == MARK.findall(template.marked)

    @property
    def runs(self) -> list[list[Piece]]:
        """The pieces before the first candidate, between two, and after the last one."""
        runs: list[list[Piece]] = [[]]
        for piece in cut(self.text):
            if piece.content == CANDIDATE:
                runs.append([])
            else:
                runs[-1].append(piece)
        return runs
