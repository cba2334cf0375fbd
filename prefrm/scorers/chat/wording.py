"""What a judge behind a chat endpoint is asked, as a text file, and the messages that it becomes.

The format is that of a bundle's template (`prefrm.prompts.files`), with turns and a source image besides. A
file is the user's turn, word for word, with `{image}` once or twice and `{prompt}`; `{context}` is the source
image of an edit. A line `{system}` or `{user}` starts a turn. All else is literal, line breaks and other
braces included, and the answers at the end are those of a bundle's template.

    {image}{image}Which image shows the caption better?
    Caption: [{prompt}]
    {answer}
    Image 1 is better
    Image 2 is better
    Both|Neither
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError
from prefrm.prompts.files import SPACE, read_text, split_answers

__all__ = ["Turn", "Wording", "parse_wording", "read_wording"]

TURN = re.compile(r"^\{(system|user)\}\n", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{(image|context|prompt)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message: its role, and texts and the names of placeholders in turn, a text first and last."""

    role: str
    parts: tuple[str, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """The names of its placeholders, in order."""
        return self.parts[1::2]

    def message(self, prompt: str, images: dict[str, list[str]]) -> dict[str, Any]:
        """The message of an endpoint, which takes each image from the front of its list of data URLs."""
        items: list[dict[str, Any]] = []
        for n, part in enumerate(self.parts):
            if n % 2 and part != "prompt":
                items.append({"type": "image_url", "image_url": {"url": images[part].pop(0)}})
                continue
            text = prompt if n % 2 else part
            if items and items[-1]["type"] == "text":
                items[-1]["text"] += text
            elif text:
                items.append({"type": "text", "text": text})
        plain = len(items) == 1 and items[0]["type"] == "text"
        return {"role": self.role, "content": items[0]["text"] if plain else items}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The turns of a question.

    Attributes:
        turns: in order; the user's is last.
        prefix: start of the answer, None where the file does not say.
        labels: the answers, () where the file does not say.
    """

    turns: tuple[Turn, ...]
    prefix: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of candidates that one question shows: 1 or 2."""
        return self._count("image")

    @property
    def context(self) -> int:
        """Number of images of the context, such as the source of an edit, that one question shows."""
        return self._count("context")

    def messages(
        self, prompt: str, images: Sequence[str], context: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """The messages of a question about candidates, given as data URLs in the order shown."""
        waiting = {"image": list(images), "context": list(context)}
        return [turn.message(prompt, waiting) for turn in self.turns]

    def _count(self, name: str) -> int:
        return sum(turn.places.count(name) for turn in self.turns)


def read_wording(path: Path) -> Wording:
    """The wording in a text file.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is not a wording.
    """
    return parse_wording(read_text(path), name=str(path))


def parse_wording(text: str, *, name: str) -> Wording:
    """The wording that a file's text describes; `name` names it in messages.

    Raises:
        ConfigError: a placeholder is missing, or there are more images than two.
    """
    body, prefix, labels = split_answers(text, name)
    before, *rest = TURN.split(body)
    parts = [("user", before)] if before.strip() or not rest else []
    parts += zip(rest[::2], rest[1::2], strict=True)
    # The line break before a turn's line ends the turn before it and is not part of its text.
    texts = [turn.removesuffix("\n") if n + 1 < len(parts) else turn for n, (_, turn) in enumerate(parts)]
    turns = tuple(
        Turn(role=role, parts=tuple(PLACEHOLDER.split(turn.replace(SPACE, " "))))
        for (role, _), turn in zip(parts, texts, strict=True)
    )
    wording = Wording(turns=turns, prefix=prefix, labels=labels)
    if turns[-1].role != "user":
        raise ConfigError(f"template {name}: its last turn must be the user's; received {turns[-1].role}")
    if wording.images not in (1, 2) or not wording._count("prompt"):
        raise ConfigError(
            f"template {name} needs {{image}} once or twice and {{prompt}}; received "
            f"{wording.images} and {wording._count('prompt')} of them"
        )
    return wording
