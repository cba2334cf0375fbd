"""What the benchmark of judges trains: each case is a judge, a world, its label noise and a seed. No torch.

All cases take the same number of optimizer steps over the same number of groups with all their comparisons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

__all__ = ["CASES", "FLIP", "GROUPS", "JUDGES", "SIZES", "STEPS", "Case", "Kind"]

STEPS = 300
GROUPS = 8
"""Of a training step."""
FLIP = 0.1
"""The share of training labels that are flipped, where nothing else is said."""
SIZES: dict[str, dict[str, int]] = {"shapes": {"validation": 300, "test": 600}, "cyclic": {}}
"""Options of the recipes: a calibration error needs more groups than a recipe has by default."""
SEEDS = (0, 1, 2)
NOISE = (0.0, 0.1, 0.2, 0.3)
WORDINGS = {"joint": "match-twice-v1", "late": "match-late-v1", "alone": "rate-twice-v1"}
"""Templates by attention. The shapes world's captioner is small: it needs the prompt after images, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of judge, by the fields of `JudgeSpec` that make it."""

    head: str
    attention: str = "alone"
    quantize: str | None = None

    @property
    def name(self) -> str:
        """For tables and folders, such as "verdict-late-nf4"."""
        attention = self.attention if self.head == "verdict" else None
        return "-".join(part for part in (self.head, attention, self.quantize) if part)

    @property
    def plain(self) -> "Kind":
        """What a plain forward pass trains in its place: of any verdict, the joint one."""
        return replace(self, attention="joint") if self.head == "verdict" else self

    @property
    def template(self) -> str:
        """That of its attention."""
        return WORDINGS[self.attention]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training: what learns, from what, with which seed.

    Attributes:
        part: which table or curve it belongs to.
        kind: the judge.
        flip: the share of training labels that are flipped.
        seed: of the training; the data are always the same.
    """

    part: Literal["shapes", "cyclic", "noise"]
    kind: Kind
    flip: float = FLIP
    seed: int = 0

    @property
    def name(self) -> str:
        """Unique; the case's folder."""
        return f"{self.world}-flip{round(100 * self.flip):02d}-{self.kind.name}-seed{self.seed}"

    @property
    def world(self) -> str:
        """The recipe of its data."""
        return "cyclic" if self.part == "cyclic" else "shapes"

    @property
    def data(self) -> str:
        """The folder of its data, among the benchmark's."""
        return f"{self.world}-flip{round(100 * self.flip):02d}"

    @property
    def options(self) -> dict[str, Any]:
        """Of the recipe of its data."""
        return {**SIZES[self.world], "flip": self.flip}


JOINT, LATE = Kind(head="verdict", attention="joint"), Kind(head="verdict", attention="late")
SCALAR, EMBEDDING = Kind(head="scalar"), Kind(head="embedding")
JUDGES = (JOINT, LATE, SCALAR, EMBEDDING, replace(LATE, quantize="nf4"))
CYCLIC = ((JOINT, 0), *((LATE, seed) for seed in SEEDS), (EMBEDDING, 0), (SCALAR, 0))


def _cases() -> Iterator[Case]:
    for seed, kind in product(SEEDS, JUDGES):
        yield Case(part="shapes", kind=kind, seed=seed)
    for kind, seed in CYCLIC:
        yield Case(part="cyclic", kind=kind, flip=0.0, seed=seed)
    for flip in NOISE:
        # The curve's point at FLIP is a case of the table already.
        if flip != FLIP:
            yield Case(part="noise", kind=LATE, flip=flip)


CASES: tuple[Case, ...] = tuple(_cases())
"""In the order in which they run: one seed of everything first."""
