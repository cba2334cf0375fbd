"""The benchmark of the engine in numbers and as a table; measures nothing."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrm.bench.contents import FRAMES, VIDEOS, ContentRow, K
from prefrm.display import markdown_table, short_number
from prefrm.files import write_whole

__all__ = ["EngineReport", "EngineRow", "write_engine_report"]

JSON = "engine.json"
LINE = 110
TABLE = Path("engine") / "table.md"
HEADER = ["method", "K", "seconds", "times plain", "of floor", "pairs a second", "peak MB", "difference"]
MEASURED = (
    "{device}, {dtype}, {tokens} tokens an image; {median}. A matrix product attains {gflops:,.0f} GFLOP a "
    "second, the rate of the floor{encodes}. *plain* ran in batches of {batch}{sampled}."
)
SAMPLED = ", timed on {count} comparisons and scaled where a group has more"

CONTENTS = (
    f"Of a late judge, {K} *edits* over {K} images and one encode; three *criteria* of {K} images over one; "
    f"{VIDEOS} *videos* of {FRAMES} frames over a group of as many images."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """What a group of K images costs by one method.

    Attributes:
        method: one of `prefrm.bench.methods.METHODS`.
        k: K.
        image_tokens: of an image.
        seconds: from encoded images to all comparisons in both orders; the median of the rounds.
        speedup: how many times as fast as `plain` at this K.
        floor_seconds: the method's operations, over what a matrix product attains.
        of_floor: the part of the floor that is reached, `floor_seconds / seconds`.
        pairs_per_second: pairs of candidates, each in both orders: K(K-1)/2 over `seconds`.
        peak_mb: the most memory above what there was before, in MiB.
        max_abs_diff: of a probability from the reference's, over all pairs of a few candidates; None of
            `plain`, which is the reference of `joint`.
        timed_pairs: on how many comparisons it was timed, each order counting as one.
    """

    method: str
    k: int
    image_tokens: int
    seconds: float
    speedup: float
    floor_seconds: float
    of_floor: float
    pairs_per_second: float
    peak_mb: float
    max_abs_diff: float | None
    timed_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """All that a run gave.

    Attributes:
        device: for people.
        dtype: of the backbone.
        rounds: of which a figure is the median.
        product_gflops: 10^9 operations a second of a matrix product; the median of the run.
        plain_batch_size: the best one of those tried, by tokens of an image.
        encodes_of_floor: of that rate what the engine's encodes attain, by tokens of an image.
        model: the shape.
        versions: of what ran.
        rows: in the order of tokens, K and methods.
        contents: of edits, criteria and videos, by tokens of an image.
    """

    device: str
    dtype: str
    rounds: int
    product_gflops: float
    plain_batch_size: dict[str, int]
    encodes_of_floor: dict[str, float | None]
    model: dict[str, Any]
    versions: dict[str, str]
    rows: tuple[EngineRow, ...]
    contents: dict[str, tuple[ContentRow, ...]]

    def to_json(self) -> str:
        """Of plain data; every number is finite."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """What was measured and a table, for each size of images."""
        return "\n".join(self._section(int(tokens)) for tokens in self.plain_batch_size)

    def _section(self, tokens: int) -> str:
        rows = [row for row in self.rows if row.image_tokens == tokens]
        timed = [row.timed_pairs for row in rows if row.timed_pairs < row.k * (row.k - 1)]
        encodes = self.encodes_of_floor[str(tokens)]
        said = MEASURED.format(
            device=self.device,
            dtype=self.dtype,
            tokens=tokens,
            median="one round" if self.rounds == 1 else f"medians of {self.rounds} alternating rounds",
            gflops=self.product_gflops,
            encodes="" if encodes is None else f"; the engine's encodes reach {encodes:.2f} of it",
            batch=self.plain_batch_size[str(tokens)],
            sampled=SAMPLED.format(count=max(timed)) if timed else "",
        )
        contents = [
            [row.name, f"{row.seconds:.3g}", f"{row.baseline_seconds:.3g}", f"{row.ratio:.2f}"]
            for row in self.contents[str(tokens)]
        ]
        tables = (
            markdown_table(HEADER, [_cells(row) for row in rows]),
            textwrap.fill(CONTENTS, LINE),
            markdown_table(["late", "seconds", "baseline", "ratio"], contents),
        )
        return "\n\n".join((textwrap.fill(said, LINE), *tables)) + "\n"


def write_engine_report(report: EngineReport, docs: Path) -> None:
    """Write `engine.json` and `engine/table.md` into `docs`."""
    (docs / TABLE).parent.mkdir(parents=True, exist_ok=True)
    write_whole(docs / JSON, report.to_json())
    write_whole(docs / TABLE, report.to_markdown())


def _cells(row: EngineRow) -> Sequence[str]:
    return [
        row.method,
        str(row.k),
        short_number(row.seconds),
        f"{row.speedup:.1f}",
        f"{row.of_floor:.2f}",
        short_number(row.pairs_per_second),
        f"{row.peak_mb:.0f}",
        "-" if row.max_abs_diff is None else f"{row.max_abs_diff:.1e}",
    ]
