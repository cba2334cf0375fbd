"""The benchmark of published judges: accuracy on a dataset beside the published one, and the time of a group.

Each scorer reads the same groups one at a time, which is what a single request costs; throughput is measured
by `prefrm bench engine` and `prefrm bench server`.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prefrm.display import markdown_table, one_line
from prefrm.errors import BundleError
from prefrm.eval import PUBLISHED, Evaluation, choose_definitions, evaluate, find_splits, fit_split
from prefrm.imports import PUBLISHED as IMPORTS
from prefrm.manifest import MANIFEST, bundle_folder, read_manifest
from prefrm.progress import track
from prefrm.records import DatasetInfo, count_groups, read_groups, read_info
from prefrm.scorers import is_scorer_file, is_url
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["PublishedRow", "bench_published", "imported_judges", "published_table"]

OpenScorer = Callable[[str], AbstractContextManager[Scorer]]
VALIDATION = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """What a scorer is worth on a dataset, and what a group costs it.

    Attributes:
        scorer: as it was named.
        judge: its name in `prefrm import`; "" if it was not imported.
        accuracy: over strict pairs, in [0, 1]; a tie of the judge is wrong.
        low: lower end of its 95% interval.
        high: upper end.
        pairs: strict pairs that were judged.
        unjudged: pairs that were not.
        measured: published definitions of accuracy by name, as measured here.
        published: of these, what was published of this judge.
        seconds: of a group: the median of all but the first.
        candidates: of a group, the median.
        reason: why no pair was judged; "" if one was.
    """

    scorer: str
    judge: str
    accuracy: float
    low: float
    high: float
    pairs: int
    unjudged: int
    measured: Mapping[str, float]
    published: Mapping[str, float]
    seconds: float
    candidates: float
    reason: str


class _Timed:
    """A scorer that records the seconds of each call."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.seconds: list[float] = []

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        began = time.perf_counter()
        matrices = self._scorer.score(groups)
        self.seconds.append(time.perf_counter() - began)
        return matrices


def imported_judges(folder: Path) -> list[str]:
    """The bundles in a folder, in the order of their names. Raises `BundleError` if there is none."""
    found = [str(manifest.parent) for manifest in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not found:
        raise BundleError(
            f"{folder} has no bundle; import a judge with `prefrm import NAME --out {folder}/NAME`, or name "
            "the scorers"
        )
    return found


def bench_published(
    targets: Sequence[str],
    data: Path,
    split: str,
    open_scorer: OpenScorer,
    *,
    groups: int | None = None,
    definitions: Sequence[str] = (),
) -> list[PublishedRow]:
    """Measure scorers on the same groups of a dataset, one scorer after another.

    Args:
        targets: as `prefrm.scorers.open_scorer` takes them.
        data: the folder of a dataset.
        split: what is measured.
        open_scorer: opens a target.
        groups: how many, from the first on; None for all. With fewer, no published definition is chosen by
            the dataset.
        definitions: of `prefrm.eval.PUBLISHED`; none for those that are published on this dataset.

    Raises:
        ConfigError: a definition is unknown, or needs a validation split that the dataset lacks.
        BundleError, DatasetError, ScoringError: a scorer or the dataset cannot be read.
    """
    splits = find_splits(data, split)
    info = _info(data) if split == "test" and groups is None else None
    chosen = choose_definitions(definitions, info, fitted=splits.validation)
    tuned = any(PUBLISHED[name].tuned for name in chosen)
    rows = []
    for target in targets:
        with open_scorer(target) as scorer:
            thresholds = None
            if tuned and splits.validation is not None:
                thresholds = fit_split(scorer, data, splits.validation).thresholds
            timed = _Timed(scorer)
            total = min(groups or count_groups(data, split), count_groups(data, split))
            with track(f"{target}: {split}", total) as advance:
                found = evaluate(
                    timed,
                    islice(read_groups(data, split), groups),
                    batch=1,
                    progress=advance,
                    thresholds=thresholds,
                )
        rows.append(_row(target, found, timed.seconds, chosen))
    return rows


def published_table(rows: Sequence[PublishedRow]) -> str:
    """The rows as a Markdown table, and a line for each scorer that judged nothing."""
    silent = "".join(
        f"{row.scorer}: nothing was judged: {one_line(row.reason)}\n" for row in rows if row.reason
    )
    rows = [row for row in rows if not row.reason]
    if silent and not rows:
        return silent
    names = sorted({name for row in rows for name in row.measured})
    header = ["judge", "pair accuracy", "95% interval", "pairs", "not judged"]
    header += [title for name in names for title in (name, "published")]
    header += ["ms a group", "K"]
    table = markdown_table(header, [_cells(row, names) for row in rows])
    return f"{table}\n\n{silent}" if silent else f"{table}\n"


def _info(data: Path) -> DatasetInfo | None:
    # A dataset that was not built by a recipe has no such file.
    return read_info(data) if (data / "dataset.json").is_file() else None


def _row(target: str, found: Evaluation, seconds: Sequence[float], chosen: Iterable[str]) -> PublishedRow:
    judge, accuracy = _judge(target), found.metrics.accuracy
    column = IMPORTS[judge].column if judge in IMPORTS else ""
    measured = {name: PUBLISHED[name].accuracy(found.judged, found.thresholds).value for name in chosen}
    return PublishedRow(
        scorer=target,
        judge=judge,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        pairs=accuracy.pairs,
        unjudged=found.metrics.unjudged,
        measured=measured,
        published={
            name: PUBLISHED[name].judges[column] for name in measured if column in PUBLISHED[name].judges
        },
        seconds=statistics.median(seconds[1:] or seconds),
        candidates=statistics.median(group.matrix.size for group in found.judged),
        reason=_silence(found),
    )


def _silence(found: Evaluation) -> str:
    if any(group.matrix.judged.any() for group in found.judged):
        return ""
    return found.unreadable[0].reason if found.unreadable else "the judge gave no finite answer"


def _judge(target: str) -> str:
    if is_url(target) or is_scorer_file(target):
        return ""
    origin = read_manifest(bundle_folder(target)).origin
    return "" if origin is None else origin.judge


def _cells(row: PublishedRow, names: Sequence[str]) -> list[str]:
    cells = [row.scorer if not row.judge else f"{row.judge} ({row.scorer})"]
    cells += [f"{row.accuracy:.3f}", f"{row.low:.3f} to {row.high:.3f}", str(row.pairs), str(row.unjudged)]
    for name in names:
        cells += [_number(row.measured.get(name)), _number(row.published.get(name))]
    return [*cells, f"{1000 * row.seconds:.1f}", f"{row.candidates:g}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
