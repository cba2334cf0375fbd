"""What a judge behind a chat endpoint is asked, as a text file, and the messages that it becomes.

The format is that of a bundle's template (`prefrm.prompts.files`), with turns besides. A file is the user's
turn, word for word, with `{image}` (or `{candidate}`) once or twice, or `{text}` where candidates are texts,
and `{prompt}`.
`{context}` is an image that belongs to the prompt, such as the source of an edit, and may stand several times
for as many images; in a line without another placeholder it stands once, for any number of them. Such a line
is left out where a group has no such image, and so is one with `{criterion}`. A line `{system}` or `{user}`
starts a turn. `{noun}` and `{suffix}` of a bundle's template are refused. All else is literal, line breaks
and other braces included, and the answers at the end are those of a bundle's template.

    {image}{image}Which image shows the caption better?
    Caption: [{prompt}]
    {answer}
    Image 1 is better
    Image 2 is better
    Both|Neither
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError
from prefrm.prompts import places
from prefrm.prompts.files import SPACE, read_text, split_answers
from prefrm.prompts.places import MARK, Piece, cut, mark
from prefrm.winmatrix import Inputs, Kind

__all__ = ["Turn", "Wording", "parse_wording", "read_wording"]

TURN = re.compile(r"^\{(system|user)\}\n", re.MULTILINE)
TEXT = "{text}"
UNFILLED = {
    TEXT: "beside {image}; candidates are images or texts",
    "{suffix}": "which a question to a chat endpoint does not have; leave it out",
    "{noun}": 'which is not filled in here; write "image" or "answer"',
    "{system}": "which starts a turn in a line of its own",
    "{user}": "which starts a turn in a line of its own",
}
"""Placeholders that must not be left in a turn, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message: its role, and its texts and places in order."""

    role: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The turns of a question.

    Attributes:
        turns: in order; the user's is last.
        kind: of the candidates: "image" or "text".
        prefix: start of the answer, None where the file does not say.
        labels: the answers, () where the file does not say.
    """

    turns: tuple[Turn, ...]
    kind: Kind = "image"
    prefix: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def candidates(self) -> int:
        """Number of candidates that one question shows: 1 or 2."""
        return len(self._at(places.CANDIDATE))

    @property
    def context(self) -> int | None:
        """Number of images of the context, such as the source of an edit, that one question shows.

        None for any number.
        """
        found = self._at(places.CONTEXT)
        return None if len(found) == 1 and found[0].needs else len(found)

    @property
    def inputs(self) -> Inputs:
        """What is read of a group."""
        criteria = self._at(places.CRITERION)
        return Inputs(
            kinds=(self.kind,),
            context=self.context != 0,
            needs_context=bool(self.context),
            criterion=bool(criteria),
            needs_criterion=not all(piece.needs for piece in criteria),
        )

    def messages(
        self, prompt: str, candidates: Sequence[str], context: Sequence[str] = (), criterion: str = ""
    ) -> list[dict[str, Any]]:
        """The messages of a question.

        Args:
            prompt: of the group.
            candidates: in the order shown, each as a data URL, or as a text where the wording is for texts.
            context: data URLs of as many images as `context` says.
            criterion: of the group, "" for none.
        """
        shown, more = iter(candidates), iter(context)
        absent = {places.CONTEXT: not context, places.CRITERION: not criterion}

        def items(piece: Piece) -> Iterator[dict[str, Any]]:
            match piece.content:
                case places.PROMPT:
                    yield _text(prompt)
                case places.CRITERION:
                    yield _text(criterion)
                case places.CONTEXT:
                    yield from map(_image, more if self.context is None else [next(more)])
                case places.CANDIDATE:
                    yield (_text if self.kind == "text" else _image)(next(shown))
                case text:
                    yield _text(text)

        turns = [
            (turn.role, [one for piece in turn.pieces if not absent.get(piece.needs) for one in items(piece)])
            for turn in self.turns
        ]
        return [_message(role, found) for role, found in turns if found]

    def _at(self, place: str) -> list[Piece]:
        return [piece for turn in self.turns for piece in turn.pieces if piece.content == place]


def read_wording(path: Path) -> Wording:
    """The wording in a text file.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is not a wording.
    """
    return parse_wording(read_text(path), name=str(path))


def parse_wording(text: str, *, name: str) -> Wording:
    """The wording that a file's text describes; `name` names it in messages.

    Raises:
        ConfigError: a placeholder is missing or is not filled in, or there are more candidates than two.
    """
    if MARK.search(text):
        raise ConfigError(f"template {name} has private-use characters of Unicode; leave them out")
    body, prefix, labels = split_answers(text, name)
    kind: Kind = "text" if TEXT in body and places.CANDIDATE not in mark(body) else "image"
    if kind == "text":
        body = body.replace(TEXT, "{candidate}")
    before, *rest = TURN.split(body)
    parts = [("user", before)] if before.strip() or not rest else []
    parts += zip(rest[::2], rest[1::2], strict=True)
    # The line break before a turn's line ends the turn before it and is not part of its text.
    texts = [turn.removesuffix("\n") if n + 1 < len(parts) else turn for n, (_, turn) in enumerate(parts)]
    turns = tuple(
        Turn(role=role, pieces=tuple(cut(mark(turn.replace(SPACE, " ")))))
        for (role, _), turn in zip(parts, texts, strict=True)
    )
    for place, why in UNFILLED.items():
        if any(place in turn for turn in texts):
            raise ConfigError(f"template {name} has {place}, {why}")
    wording = Wording(turns=turns, kind=kind, prefix=prefix, labels=labels)
    if turns[-1].role != "user":
        raise ConfigError(f"template {name}: its last turn must be the user's; received {turns[-1].role}")
    prompts = len(wording._at(places.PROMPT))
    if wording.candidates not in (1, 2) or not prompts:
        raise ConfigError(
            f"template {name} needs {{image}}, or {TEXT}, once or twice and {{prompt}}; received "
            f"{wording.candidates} and {prompts} of them"
        )
    return wording


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _message(role: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One message. Neighbouring texts are one item, and a text alone is the content itself."""
    merged: list[dict[str, Any]] = []
    for item in items:
        if item["type"] == "text" and merged and merged[-1]["type"] == "text":
            merged[-1] = _text(merged[-1]["text"] + item["text"])
        elif item.get("text") != "":
            merged.append(item)
    plain = len(merged) == 1 and merged[0]["type"] == "text"
    return {"role": role, "content": merged[0]["text"] if plain else merged}
