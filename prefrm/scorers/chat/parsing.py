"""Parsers: from the text of a published judge's answer to a verdict, or the reason why there is none.

A parser raises `Unreadable` for every text that does not name exactly one outcome: a truncated answer, one
without its tag, one that names both images. Swapping the two images in a text swaps its verdict.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Parser", "Unreadable", "Verdict", "json_winner", "label", "pair_scores", "sentence", "spellings"]

DIMENSIONS = ("Alignment", "Coherence", "Style")
"""Of UnifiedReward 2.0's pair scores."""
NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"


class Unreadable(Exception):
    """The text names no outcome, or several; the message completes "the answer"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome that a text names.

    Attributes:
        label: number of the label: of a pair 0 for the image shown first, 1 for the second, 2 for a tie.
        at: offset of the label's character in the text, where its token can be read; None if there is none.
        opening: offset of the sentence that names it, where the text could have gone on to a tie instead.
        share: P(the image shown first is better) that the text itself states; None if it does not.
        scores: P(the image shown first is better) by dimension, in [0, 1].
    """

    label: int
    at: int | None = None
    opening: int | None = None
    share: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


Parser = Callable[[str], Verdict]


def spellings(label: str) -> list[str]:
    """The spellings of a label, which `|` separates."""
    return label.split("|")


def label(*labels: str) -> Parser:
    """Parser of an answer that starts with one of `labels`, in any case; the longest that fits counts."""
    spelled = [(one, n) for n, label in enumerate(labels) for one in spellings(label)]
    spelled.sort(key=lambda one: -len(one[0]))

    def parse(text: str) -> Verdict:
        start = text.lstrip()
        for one, n in spelled:
            if re.match(rf"{re.escape(one)}(?!\w)", start, re.IGNORECASE):
                return Verdict(label=n, at=len(text) - len(start))
        raise Unreadable(f"does not start with {' or '.join(map(repr, labels))}")

    return parse


def sentence(noun: str, *, ties: str | None = None, tag: str | None = None, optional: bool = False) -> Parser:
    """Parser of "{noun} 1 is better" and the like, in any case.

    Args:
        noun: what precedes the number.
        ties: a pattern of the sentence that says that neither is better; None if there is none.
        tag: the XML tag that the sentence stands in, of which the last one counts; it need not be closed,
            because a stop string ends the answer there. None reads the whole text.
        optional: whether the whole text is read where the tag is missing.
    """
    wins = re.compile(rf"{noun} ([12]) is better", re.IGNORECASE)
    tie = re.compile(ties, re.IGNORECASE) if ties else None

    def parse(text: str) -> Verdict:
        start, end = _tagged(text, tag, optional) if tag else (0, len(text))
        found = list(wins.finditer(text, start, end))
        tied = list(tie.finditer(text, start, end)) if tie else []
        outcomes = {int(match[1]) - 1 for match in found} | ({2} if tied else set())
        if len(outcomes) != 1:
            raise Unreadable("names several outcomes" if outcomes else "names no outcome")
        first = (found or tied)[0]
        return Verdict(label=outcomes.pop(), at=first.start(1) if found else None, opening=first.start())

    return parse


def _tagged(text: str, tag: str, optional: bool) -> tuple[int, int]:
    """Where the content of the last such element begins and ends."""
    opened = list(re.finditer(rf"<{tag}>", text, re.IGNORECASE))
    if not opened:
        if optional:
            return 0, len(text)
        raise Unreadable(f"has no <{tag}>")
    start = opened[-1].end()
    closed = re.compile(rf"</{tag}>", re.IGNORECASE).search(text, start)
    return start, closed.start() if closed else len(text)


def pair_scores(text: str) -> Verdict:
    """UnifiedReward 2.0's pair scores: of each dimension "Image 1: x" and "Image 2: y", share x / (x + y).

    The verdict's share is the mean over the three dimensions.
    """
    scores: dict[str, float] = {}
    for name in DIMENSIONS:
        pattern = rf"{name} Score:\s*Image 1:\s*{NUMBER}\s*Image 2:\s*{NUMBER}"
        if (match := re.search(pattern, text)) is None:
            raise Unreadable(f"has no {name} Score of both images")
        first, second = float(match[1]), float(match[2])
        if not 0 < first + second < math.inf:
            raise Unreadable(f"has {name} scores that are not a share: {first:g} and {second:g}")
        scores[name] = first / (first + second)
    share = sum(scores.values()) / len(scores)
    return Verdict(label=0 if share > 0.5 else 1 if share < 0.5 else 2, share=share, scores=scores)


def json_winner(text: str) -> Verdict:
    """UnifiedReward-Flex: a JSON object with "winner": "Image 1", and `cat_winner` of each category."""
    answer = _json_object(text)
    winner = _winner(answer.get("winner"))
    if winner is None:
        raise Unreadable('has no "winner" that is one of the two images')
    stated = list(re.finditer(r'"winner"\s*:\s*"[^"]*?image ([12])', text, re.IGNORECASE))
    scores: dict[str, float] = {}
    categories = answer.get("categories")
    for category in categories if isinstance(categories, list) else []:
        if isinstance(category, dict) and (won := _winner(category.get("cat_winner"))) is not None:
            scores[_category(category, len(scores))] = float(won == 0)
    return Verdict(label=winner, at=stated[-1].start(1) if stated else None, scores=scores)


def _category(category: dict[str, Any], number: int) -> str:
    for key in ("name", "category", "title"):
        if isinstance(category.get(key), str) and category[key]:
            return str(category[key])
    return f"category {number + 1}"


def _json_object(text: str) -> dict[str, Any]:
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unreadable("has no whole JSON object")
    return found


def _winner(value: object) -> int | None:
    named = {int(n) - 1 for n in re.findall(r"image ([12])", str(value), re.IGNORECASE)}
    return named.pop() if len(named) == 1 else None
