"""Prompt sets on which models are compared, each prompt with the questions that its images are checked by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ArenaPrompt", "Check", "PromptSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question about an image of a prompt.

    Attributes:
        question: what is asked, or a description of the test point.
        dimension: the primary dimension that the answer counts for, such as "Attribute".
        subdimension: a part of the dimension, such as "Attribute - Quantity"; empty if it has none.
        answer: that an image which follows the prompt gives, such as "four".
        parents: numbers of the prompt's checks without which this one cannot hold.
    """

    question: str
    dimension: str
    subdimension: str = ""
    answer: str = "yes"
    parents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaPrompt:
    """A prompt that every model answers.

    Attributes:
        id: unique in its set; names of image files are made of it.
        text: that the models are given.
        tags: by which results are grouped, such as {"theme": "Art", "subtheme": "Art - Graphic"}.
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
        digest: sha256 in hex of the file's bytes; of a folder, of the names and bytes of its files.
        prompts: in the order of the file, at least one.
        defects: what was wrong in the file, by kind -> how often.
    """

    name: str
    digest: str
    prompts: tuple[ArenaPrompt, ...]
    defects: Mapping[str, int] = field(default_factory=dict)
