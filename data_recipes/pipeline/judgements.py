"""The judgements that a recipe reads from a row of its source.

Polarity is written here, as in `prefrm.records`: `Judgement.p` is the probability that the first image is
preferred, a higher `Rating.score` is better, and rank 1 of `ranked` is the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["ImageRef", "Judgement", "LeftOut", "Rating", "Statement", "ranked"]

ImageRef: TypeAlias = bytes | str | Path | Mapping[str, Any] | None
"""An encoded image, a path, or the {"bytes": ..., "path": ...} of an Image feature of `datasets`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One or more votes on two images.

    Attributes:
        prompt: what both images answer.
        first: the image that stands first in the row.
        second: the other one.
        p: share of the votes for the first image, in [0, 1]; 0.5 is a tie.
        weight: number of votes.
        tags: what reports break results down by; a group has those on which all its judgements agree.
        family: the prompts of one family, such as a prompt and a shorter form of it, stay in one split. It
            does not matter where the source has splits.
    """

    prompt: str
    first: ImageRef
    second: ImageRef
    p: float
    weight: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)
    family: str = ""

    @classmethod
    def voted(
        cls, prompt: str, first: ImageRef, second: ImageRef, votes: tuple[float, float], **more: Any
    ) -> "Judgement | LeftOut":
        """Votes for the first and for the second image; without any, the row is left out."""
        total = sum(votes)
        if total <= 0:
            return LeftOut(reason="no votes", prompt=prompt)
        return cls(prompt=prompt, first=first, second=second, p=votes[0] / total, weight=total, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A score, or the lack of one, of one image: images of one set under one prompt are compared by their
    scores.

    Attributes:
        prompt: what the image answers.
        image: the image.
        score: higher is better; None for an image that nobody rated.
        deviation: standard deviation of the score. If it is not 0, p is Phi((a - b) / sqrt(s_a^2 + s_b^2))
            (Thurstone, 1927), and otherwise 1, 0.5 or 0.
        set: only ratings of one set are compared: a ranking, an annotator.
        tags: as those of `Judgement`.
    """

    prompt: str
    image: ImageRef
    score: float | None
    deviation: float = 0.0
    set: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row, or a part of one, that says nothing about two images; `reason` is counted."""

    reason: str
    prompt: str = ""


Statement: TypeAlias = Judgement | Rating | LeftOut


def ranked(
    prompt: str, images: Sequence[ImageRef], ranks: Sequence[float | None], *, set: str, **more: Any
) -> list[Rating]:
    """The ratings of a ranking: rank 1 is the best, equal ranks tie, None was not ranked."""
    return [
        Rating(prompt=prompt, image=image, score=None if rank is None else -float(rank), set=set, **more)
        for image, rank in zip(images, ranks, strict=True)
    ]
