"""The judgements that a recipe reads from a row of its source.

Polarity is written here, as in `prefrm.records`: `Judgement.p` is the probability that the first candidate is
preferred, a higher `Rating.score` is better, and rank 1 of `ranked` is the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["ContentRef", "Judgement", "LeftOut", "Rating", "Statement", "Text", "ranked"]


@dataclass(frozen=True, slots=True)
class Text:
    """A candidate that is a text, told apart from a path."""

    text: str


ContentRef: TypeAlias = bytes | str | Path | Mapping[str, Any] | Text | None
"""An encoded image or video, its path, the {"bytes": ..., "path": ...} of an Image or Video feature of
`datasets`, or a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One or more votes on two candidates.

    Attributes:
        prompt: what both candidates answer.
        first: the candidate that stands first in the row.
        second: the other one, of the same kind.
        p: share of the votes for the first candidate, in [0, 1]; 0.5 is a tie.
        weight: number of votes.
        context: images that belong to the prompt, such as the source of an edit.
        criterion: what the candidates were compared by; "" is overall preference.
        tags: what reports break results down by; a group has those on which all its judgements agree.
        family: the prompts of one family, such as a prompt and a shorter form of it, stay in one split. It
            does not matter where the source has splits.
        set: a judgement that stands several times in one set, with the same p of the same two candidates, is
            counted once. Without a set, each counts: votes of different people may be equal.
    """

    prompt: str
    first: ContentRef
    second: ContentRef
    p: float
    weight: float = 1.0
    context: Sequence[ContentRef] = ()
    criterion: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    set: str = ""

    @classmethod
    def voted(
        cls, prompt: str, first: ContentRef, second: ContentRef, votes: tuple[float, float], **more: Any
    ) -> "Judgement | LeftOut":
        """Votes for the first and for the second candidate; without any, the row is left out."""
        total = sum(votes)
        if total <= 0:
            return LeftOut(reason="no votes", prompt=prompt)
        return cls(prompt=prompt, first=first, second=second, p=votes[0] / total, weight=total, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A score, or the lack of one, of one candidate: candidates of one set under one prompt are compared by
    their scores.

    Attributes:
        prompt: what the candidate answers.
        candidate: an image, a video or a text.
        score: higher is better; None for a candidate without a rating.
        deviation: standard deviation of the score. If it is not 0, p is Phi((a - b) / sqrt(s_a^2 + s_b^2))
            (Thurstone, 1927), and otherwise 1, 0.5 or 0.
        set: only ratings of one set are compared: a ranking, an annotator.
        context: as that of `Judgement`, and so are `criterion` and `tags`.
    """

    prompt: str
    candidate: ContentRef
    score: float | None
    deviation: float = 0.0
    set: str = ""
    context: Sequence[ContentRef] = ()
    criterion: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row, or a part of one, that says nothing about two candidates; `reason` is counted."""

    reason: str
    prompt: str = ""


Statement: TypeAlias = Judgement | Rating | LeftOut


def ranked(
    prompt: str, candidates: Sequence[ContentRef], ranks: Sequence[float | None], *, set: str, **more: Any
) -> list[Rating]:
    """The ratings of a ranking: rank 1 is the best, equal ranks tie, None was not ranked."""
    return [
        Rating(prompt=prompt, candidate=one, score=None if rank is None else -float(rank), set=set, **more)
        for one, rank in zip(candidates, ranks, strict=True)
    ]
