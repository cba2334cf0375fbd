"""A preference group and its comparisons: the one record of a preference dataset, and its rules.

Polarity is written here and nowhere else: `Comparison.p` is the probability that candidate `i` is
preferred to candidate `j`. Recipes build comparisons with the constructors below, so none of them
decides for itself which way round a label goes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from prefrm import media
from prefrm.errors import RecordError
from prefrm.winmatrix import Candidate, Group

__all__ = [
    "SURROGATE",
    "Comparison",
    "PreferenceGroup",
    "comparisons_from_ranking",
    "comparisons_from_scores",
    "prompt_key",
]


SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate: half of a character beyond U+FFFF, which Python strings can hold and UTF-8 cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One statement about two candidates of a group.

    Attributes:
        i: index of the first candidate.
        j: index of the second candidate, not `i`.
        p: probability in [0, 1] that candidate i is preferred to candidate j; 0.5 is a tie.
        weight: > 0; how much this comparison counts in a loss or a mean.
    """

    i: int
    j: int
    p: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.i == self.j or min(self.i, self.j) < 0:
            raise RecordError(f"a comparison needs two different candidates; received i={self.i}, j={self.j}")
        if not 0.0 <= self.p <= 1.0:
            raise RecordError(f"p is the probability that i is preferred, in [0, 1]; received {self.p}")
        if not 0.0 < self.weight < float("inf"):
            raise RecordError(f"weight must be positive and finite; received {self.weight}")

    @classmethod
    def preferred(cls, winner: int, loser: int, *, weight: float = 1.0) -> "Comparison":
        """`winner` was preferred to `loser`, with certainty."""
        return cls(i=winner, j=loser, p=1.0, weight=weight)

    @classmethod
    def tie(cls, i: int, j: int, *, weight: float = 1.0) -> "Comparison":
        """Neither was preferred."""
        return cls(i=i, j=j, p=0.5, weight=weight)

    @property
    def is_strict(self) -> bool:
        """Whether one of the two is preferred (p is not 0.5)."""
        return self.p != 0.5

    def swapped(self) -> "Comparison":
        """The same statement with the candidates named the other way round; p becomes 1 - p, rounded."""
        return replace(self, i=self.j, j=self.i, p=1.0 - self.p)

    def flipped(self) -> "Comparison":
        """The opposite statement about the same candidates: label noise."""
        return replace(self, p=1.0 - self.p)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """A prompt, its candidates and their comparisons: one record of a preference dataset.

    Attributes:
        id: unique in its dataset; errors name it.
        prompt: what the candidates answer; not blank: in data that is a missing value, and no policy can be
            trained on it.
        candidates: K >= 2, all encoded images, all encoded videos or all texts; None or empty where one is
            missing.
        comparisons: statements about pairs of candidates; none may be about a missing one.
        context: encoded images that belong to the prompt, as in `Group`.
        criterion: what the candidates were compared by; "" is overall preference.
        quality: length K, the candidates' true quality where the source knows it (higher is better,
            comparable inside the group only), or None.
        tags: what reports break results down by, such as {"skill": "counting"}.
        completions: length K, what each candidate was made from where the source knows it (a drawing
            program, an SVG), None where it does not. No judge sees them; text policies train on them.

    Raises:
        RecordError: one of these rules is broken, or a text is not valid Unicode, which no file can hold.
    """

    id: str
    prompt: str
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    context: tuple[bytes, ...] = ()
    criterion: str = ""
    quality: tuple[float, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    completions: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        size = len(self.candidates)
        if size < 2:
            raise RecordError(f"record {self.id!r} has {size} candidates; a group needs at least 2")
        try:
            self.group()
        except RecordError as error:
            raise RecordError(f"record {self.id!r}: {error}") from error
        texts = (self.id, self.prompt, self.criterion, *self.tags, *self.tags.values())
        for text in (*texts, *self.candidates, *(self.completions or ())):
            if isinstance(text, str) and SURROGATE.search(text):
                raise RecordError(f"record {self.id!r}: {text[:60]!r} is not valid Unicode text")
        if not self.prompt.strip():
            raise RecordError(f"record {self.id!r} has an empty prompt; write what the candidates answer")
        if self.quality is not None and len(self.quality) != size:
            raise RecordError(f"record {self.id!r} has {size} candidates but {len(self.quality)} qualities")
        if self.completions is not None and len(self.completions) != size:
            raise RecordError(
                f"record {self.id!r} has {size} candidates but {len(self.completions)} completions"
            )
        for c in self.comparisons:
            if max(c.i, c.j) >= size:
                raise RecordError(
                    f"record {self.id!r} compares candidates {c.i} and {c.j} but has {size}, numbered from 0"
                )
            if not (self.candidates[c.i] and self.candidates[c.j]):
                raise RecordError(
                    f"record {self.id!r} compares candidates {c.i} and {c.j}, one of which is missing"
                )

    def group(self) -> Group:
        """What a scorer sees, without any label."""
        return Group(
            prompt=self.prompt, candidates=self.candidates, context=self.context, criterion=self.criterion
        )

    @property
    def prompt_key(self) -> str:
        """The key by which prompts, with their context, are equal."""
        return prompt_key(self.prompt, map(media.digest, self.context))


def comparisons_from_scores(scores: Sequence[float | None]) -> tuple[Comparison, ...]:
    """Every pair of scored candidates, lower index first; a higher score is preferred, equal ones tie.

    Raises:
        RecordError: a score is NaN, which is neither higher nor lower; None is what was not scored.
    """
    if any(score is not None and score != score for score in scores):
        raise RecordError(f"a score is NaN; use None for a candidate without one: {list(scores)}")
    return tuple(
        Comparison.tie(i, j)
        if a == b
        else (Comparison.preferred(i, j) if a > b else Comparison.preferred(i, j).flipped())
        for (i, a), (j, b) in combinations(((n, s) for n, s in enumerate(scores) if s is not None), 2)
    )


def comparisons_from_ranking(ranks: Sequence[float | None]) -> tuple[Comparison, ...]:
    """Every pair of ranked candidates, lower index first; rank 1 is the best, equal ranks tie."""
    return comparisons_from_scores([None if rank is None else -rank for rank in ranks])


def prompt_key(prompt: str, context: Iterable[str] = ()) -> str:
    """The key by which prompts are equal: the text in lower case with single spaces, and the digests of the
    context images."""
    return " ".join((*prompt.casefold().split(), *context))
