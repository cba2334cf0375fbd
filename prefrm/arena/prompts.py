"""Prompt sets on which models are compared, each prompt with the questions that its images are checked by."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import read_regular

__all__ = ["ArenaPrompt", "Check", "PromptSet", "read_prompts"]

MOST_BYTES = 64 * 2**20
"""Of a file of prompts; DPG-Bench's questions, the largest published ones, have 5 MB."""
TEXT = "text"
"""Name of a set of plain lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question about an image of a prompt.

    Attributes:
        question: what is asked, or a description of the test point.
        dimension: the primary dimension that the answer counts for, such as "Attribute".
        subdimension: a part of the dimension, such as "Attribute - Quantity"; empty if it has none.
    """

    question: str
    dimension: str
    subdimension: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaPrompt:
    """A prompt that every model answers.

    Attributes:
        id: unique in its set; names of image files are made of it.
        text: that the models are given.
        tags: by which results are grouped, such as {"theme": "Art", "subtheme": "Graphic"}.
        checks: in the order of the source; () if it has none.
    """

    id: str
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The prompts of a file.

    Attributes:
        name: of the format, such as "unigenbench-en" or "text".
        digest: sha256 of the file's bytes, in hex.
        prompts: in the order of the file, at least one.
        defects: what was wrong in the file, by kind -> how often.
    """

    name: str
    digest: str
    prompts: tuple[ArenaPrompt, ...]
    defects: Mapping[str, int] = field(default_factory=dict)


def read_prompts(path: Path | str, *, columns: Mapping[str, str] | None = None) -> PromptSet:
    """The prompts in a file, whose format is told by its contents.

    A text file has one prompt in a line; blank lines are left out, and the id of a prompt is its number among
    the others, from 0 on.

    Args:
        path: of the file.
        columns: for a table of any other format, what is read -> the column that has it.

    Raises:
        ConfigError: the file cannot be read, or is of no known format.
    """
    path = Path(path)
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"the prompts {path} cannot be read: {error.strerror or error}") from error
    if columns is not None:
        raise ConfigError(f"{path} is not a table; received columns {dict(columns)}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompts {path} are not UTF-8 text: {error.reason}") from error
    prompts = [
        ArenaPrompt(id=str(n), text=line)
        for n, line in enumerate(filter(None, map(str.strip, text.split("\n"))))
    ]
    return _prompt_set(TEXT, content, prompts, {})


def _prompt_set(
    name: str, content: bytes, prompts: Sequence[ArenaPrompt], defects: Mapping[str, int]
) -> PromptSet:
    if not prompts:
        raise ConfigError("the file has no prompt; write one in each line")
    if repeated := [id for id, count in Counter(prompt.id for prompt in prompts).items() if count > 1]:
        raise ConfigError(f"two prompts have the id {repeated[0]!r}; give each its own")
    return PromptSet(
        name=name,
        digest=hashlib.sha256(content).hexdigest(),
        prompts=tuple(prompts),
        defects=dict(defects),
    )
