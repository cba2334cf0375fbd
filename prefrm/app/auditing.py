"""An audit: a judge's verdicts on a split, made in the background, and what a person keeps and corrects."""

import csv
import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path

from prefrm.app.findings import AuditedGroup, Finding
from prefrm.app.judges import Judges
from prefrm.chunks import chunks
from prefrm.data import LoadedGroups
from prefrm.errors import DataError, PrefrmError
from prefrm.records import Corrections, PreferenceGroup, read_row_groups, row_group_sizes
from prefrm.records.corrections import append_row
from prefrm.shutdown import in_daemon_thread

__all__ = ["Audit", "Progress"]

# Groups a call of the judge: others who use it wait for so many.
BATCH = 8
ROW_GROUPS_IN_MEMORY = 4
# Columns of findings.csv that tell one finding from another.
KEY = ("judge", "kind", "record", "candidates")


@dataclass(slots=True)
class Progress:
    """How far a judge is.

    Attributes:
        total: groups that it was asked about.
        groups: those that are judged.
        error: why it stopped, "" if it did not.
        running: whether it goes on.
    """

    total: int
    groups: list[AuditedGroup]
    error: str = ""
    running: bool = True


class Audit:
    """Verdicts of judges on the groups of a split. Safe to use from several threads.

    Args:
        judges: those that can be asked.
        data: the split.
        folder: of `findings.csv`, what people kept, and of `corrections.csv`, labels that they corrected.

    Raises:
        DatasetError: there is no such split, or `corrections.csv` is damaged.
    """

    def __init__(self, judges: Judges, data: LoadedGroups, folder: Path) -> None:
        self._judges, self.data = judges, data
        self.findings, self.corrections_file = folder / "findings.csv", folder / "corrections.csv"
        self.corrections = Corrections(self.corrections_file)
        self._progress: dict[str, Progress] = {}
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        self._starts = list(accumulate(row_group_sizes(data.folder, data.split), initial=0))
        self._row_group = lru_cache(ROW_GROUPS_IN_MEMORY)(self._read_row_group)
        self._kept = _kept(self.findings)

    def start(self, judge: str, most: int) -> None:
        """Judge the first `most` groups in the background, unless the judge is at it already."""
        with self._lock:
            before = self._progress.get(judge)
            if before is not None and before.running:
                return
            progress = Progress(total=min(most, len(self.data)), groups=[])
            self._progress[judge] = progress
        in_daemon_thread(lambda: self._run(judge, progress))

    def progress(self, judge: str) -> Progress | None:
        """How far a judge is; None if it was not started."""
        return self._progress.get(judge)

    def record(self, id: str) -> PreferenceGroup:
        """A group that was judged, with its corrected labels. Raises `DataError` if there is none."""
        if id not in self._places:
            raise DataError(f"no judged record has the id {id[:60]!r}")
        group = self._row_group(bisect_right(self._starts, self._places[id]) - 1)[id]
        return self.corrections.apply(group)

    def keep(self, judge: str, finding: Finding, note: str, by: str) -> None:
        """Add a finding to `findings.csv`, unless it is there."""
        group = self.record(finding.record)
        row = {
            **dict(zip(KEY, key := _key(judge, finding), strict=True)),
            "severity": f"{finding.severity:.4f}",
            "finding": finding.text,
            "prompt": group.prompt,
            "criterion": group.criterion,
            "tags": " ".join(f"{name}={value}" for name, value in group.tags.items()),
            "identity": self._judges.identity(judge),
            "note": note,
            "by": by,
        }
        with self._lock:
            if key not in self._kept:
                append_row(self.findings, row)
                self._kept.add(key)

    def is_kept(self, judge: str, finding: Finding) -> bool:
        """Whether a finding is in `findings.csv`."""
        return _key(judge, finding) in self._kept

    def _run(self, judge: str, progress: Progress) -> None:
        try:
            for part in chunks(self._read(progress.total), BATCH):
                matrices = self._judges.score(judge, [group.group() for group in part])
                found = [AuditedGroup.of(group, matrix) for group, matrix in zip(part, matrices, strict=True)]
                progress.groups.extend(found)
        except PrefrmError as error:
            progress.error = str(error)
        finally:
            progress.running = False

    def _read(self, most: int) -> Iterator[PreferenceGroup]:
        for place, group in enumerate(islice(self.data, most)):
            self._places[group.id] = place
            yield group

    def _read_row_group(self, number: int) -> dict[str, PreferenceGroup]:
        return {group.id: group for group in read_row_groups(self.data.folder, self.data.split, [number])}


def _key(judge: str, finding: Finding) -> tuple[str, ...]:
    """The values of `KEY`."""
    return judge, finding.kind, finding.record, " ".join(map(str, finding.candidates))


def _kept(path: Path) -> set[tuple[str, ...]]:
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
