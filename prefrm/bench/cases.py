"""What the benchmark of judges trains: each case is a judge, a world, its label noise and a seed. No torch.

All cases take the same number of optimizer steps over the same number of groups with all their comparisons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

__all__ = ["CASES", "FLIP", "GROUPS", "JUDGES", "PARTS", "SISTERS", "SIZES", "STEPS", "Case", "Kind"]

STEPS = 300
GROUPS = 8
"""Of a training step."""
FLIP = 0.1
"""The share of training labels that are flipped, where nothing else is said."""
SISTERS = {
    "images": "shapes",
    "edits": "shapes-edits",
    "videos": "shapes-clips",
    "texts": "shapes-questions",
    "criteria": "shapes-criteria",
    "criteria, not told": "shapes-criteria",
}
"""By what is compared, the world in which it is learned."""
KINDS: dict[str, Literal["image", "video", "text"]] = {"videos": "video", "texts": "text"}
"""The kind of candidates of a `JudgeSpec`; all others are images."""
UNTOLD = "criteria, not told"
"""The judge of two criteria that is never told which one is meant: what the others are compared with."""
SIZES: dict[str, dict[str, int]] = {"cyclic": {}}
SIZE = {"validation": 300, "test": 600}
"""Options of the recipes: a calibration error needs more groups than a recipe has by default."""
PARTS = ("shapes", "cyclic", "noise", "kinds")
"""The tables and curves of the report."""
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
    base: str = "shapes-captioner"
    candidates: Literal["image", "video", "text"] = "image"

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
        """That of its attention; the viewer's judges share one for candidates of every kind."""
        return "fit-late-v1" if self.base == VIEWER else WORDINGS[self.attention]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training: what learns, from what, with which seed.

    Attributes:
        part: which table or curve it belongs to.
        kind: the judge.
        compared: of part "kinds", what is compared (`SISTERS`).
        flip: the share of training labels that are flipped.
        seed: of the training; the data are always the same.
    """

    part: Literal["shapes", "cyclic", "noise", "kinds"]
    kind: Kind
    compared: str = "images"
    flip: float = FLIP
    seed: int = 0

    @property
    def name(self) -> str:
        """Unique; the case's folder."""
        judge = self.kind.name if self.part != "kinds" else f"{self.kind.base}-{self.kind.name}"
        return f"{self.data}-{judge}-seed{self.seed}"

    @property
    def told(self) -> "Case":
        """The same case with data whose criteria are stated."""
        return replace(self, compared="criteria") if self.compared == UNTOLD else self

    @property
    def world(self) -> str:
        """The recipe of its data."""
        return "cyclic" if self.part == "cyclic" else SISTERS[self.compared]

    @property
    def data(self) -> str:
        """The folder of its data, among the benchmark's."""
        untold = "-untold" if self.compared == UNTOLD else ""
        return f"{self.world}-flip{round(100 * self.flip):02d}{untold}"

    @property
    def options(self) -> dict[str, Any]:
        """Of the recipe of its data."""
        return {**SIZES.get(self.world, SIZE), "flip": self.flip}


JOINT, LATE = Kind(head="verdict", attention="joint"), Kind(head="verdict", attention="late")
SCALAR, EMBEDDING = Kind(head="scalar"), Kind(head="embedding")
JUDGES = (JOINT, LATE, SCALAR, EMBEDDING, replace(LATE, quantize="nf4"))
CYCLIC = ((JOINT, 0), *((LATE, seed) for seed in SEEDS), (EMBEDDING, 0), (SCALAR, 0))


VIEWER = "shapes-viewer"


def _cases() -> Iterator[Case]:
    for seed, kind in product(SEEDS, JUDGES):
        yield Case(part="shapes", kind=kind, seed=seed)
    for kind, seed in CYCLIC:
        yield Case(part="cyclic", kind=kind, flip=0.0, seed=seed)
    for flip in NOISE:
        # The curve's point at FLIP is a case of the table already.
        if flip != FLIP:
            yield Case(part="noise", kind=LATE, flip=flip)
    for seed, compared in product(SEEDS, SISTERS):
        kind = replace(LATE, base=VIEWER, candidates=KINDS.get(compared, "image"))
        yield Case(part="kinds", kind=kind, compared=compared, seed=seed)


CASES: tuple[Case, ...] = tuple(_cases())
"""In the order in which they run: one seed of everything first."""
