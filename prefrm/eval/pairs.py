"""Judged groups without their pixels, and their comparisons laid out as columns.

What `metrics` and `calibration` compute from. Knows nothing of either.

Shapes: N comparisons, K candidates of a group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrm.records import Comparison, PreferenceGroup
from prefrm.winmatrix import Doubles, Kind, WinMatrix

__all__ = ["JudgedGroup", "Pairs", "pairs_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedGroup:
    """A group's labels beside its win matrix; the candidates are gone, so a whole dataset fits in memory.

    `lengths` are those of the candidates in characters, 0 for a missing one; empty unless they are texts.
    """

    id: str
    prompt: str
    comparisons: tuple[Comparison, ...]
    quality: tuple[float, ...] | None
    tags: Mapping[str, str]
    matrix: WinMatrix
    kind: Kind = "image"
    criterion: str = ""
    lengths: tuple[int, ...] = ()

    @classmethod
    def of(cls, group: PreferenceGroup, matrix: WinMatrix) -> "JudgedGroup":
        """The labels of `group` beside what a scorer said of it."""
        kind = group.group().kind
        return cls(
            id=group.id,
            prompt=group.prompt,
            comparisons=group.comparisons,
            quality=group.quality,
            tags=dict(group.tags),
            matrix=matrix,
            kind=kind,
            criterion=group.criterion,
            lengths=tuple(len(x or "") for x in group.candidates) if kind == "text" else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Comparisons as columns of equal length N.

    Attributes:
        p: what the judge says, P(i beats j); NaN where the pair was not judged. An inferred p is what a fit
            says of other pairs, and none of the judge's answers.
        order_gap: the judge's order gap; NaN where it has none.
        tie: the judge's P(tie); NaN where it gives none.
        target: what the dataset says, the probability that i is preferred; 0.5 is a tie.
        weight: the comparison's weight.
        prompt: int, the same for comparisons of the same prompt, which are not independent.
        lower_first: bool, whether i < j.
    """

    p: Doubles
    order_gap: Doubles
    tie: Doubles
    target: Doubles
    weight: Doubles
    prompt: npt.NDArray[np.int64]
    lower_first: npt.NDArray[np.bool_]

    @property
    def judged(self) -> "Pairs":
        """Only the pairs that the judge answered."""
        return self.where(np.isfinite(self.p))

    @property
    def strict(self) -> "Pairs":
        """Only the pairs of which the dataset prefers one candidate."""
        return self.where(self.target != 0.5)

    @property
    def ordered(self) -> "Pairs":
        """Only the pairs that the judge answered in both presentation orders."""
        return self.where(np.isfinite(self.order_gap))

    def where(self, keep: npt.NDArray[np.bool_]) -> "Pairs":
        """The rows at which `keep`, bool [N], is true."""
        return Pairs(**{name: getattr(self, name)[keep] for name in self.__slots__})

    def __len__(self) -> int:
        return len(self.p)


def pairs_of(judged: Iterable[JudgedGroup]) -> Pairs:
    """Every comparison of the groups, in order."""
    rows: list[tuple[float, float, float, float, float, int, bool]] = []
    prompts: dict[str, int] = {}
    for group in judged:
        prompt = prompts.setdefault(group.prompt, len(prompts))
        p = np.where(group.matrix.valid, group.matrix.p, np.nan)
        gap, tie = group.matrix.order_gap, group.matrix.tie
        rows += [
            (p[c.i, c.j], gap[c.i, c.j], tie[c.i, c.j], c.p, c.weight, prompt, c.i < c.j)
            for c in group.comparisons
        ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    return Pairs(
        p=columns[0],
        order_gap=columns[1],
        tie=columns[2],
        target=columns[3],
        weight=columns[4],
        prompt=columns[5].astype(np.int64),
        lower_first=columns[6].astype(np.bool_),
    )
