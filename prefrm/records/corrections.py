"""Corrections of labels: a CSV file beside a dataset, which itself stays as it is.

    record,first,second,p,note,by
    shapes-test-000017,0,3,1,a star and no triangle,ann

`p` is the probability that candidate `first` is preferred to candidate `second`: 1, 0, or 0.5 for a tie;
empty takes the comparison away. Of several lines about a pair, the last one counts.
"""

import csv
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prefrm.errors import DatasetError, RecordError
from prefrm.records.record import Comparison, PreferenceGroup

__all__ = ["Correction", "Corrections", "append_row"]

COLUMNS = ("record", "first", "second", "p", "note", "by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A new label of a pair of candidates.

    Attributes:
        record: the id of the group.
        first: index of a candidate.
        second: index of another.
        p: probability in [0, 1] that `first` is preferred; None takes the comparison away.
        note: why.
        by: who says so.

    Raises:
        RecordError: the indices or `p` are not those of a comparison.
    """

    record: str
    first: int
    second: int
    p: float | None
    note: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        Comparison(i=self.first, j=self.second, p=0.5 if self.p is None else self.p)

    @property
    def pair(self) -> frozenset[int]:
        """Both candidates."""
        return frozenset((self.first, self.second))


class Corrections:
    """The corrections in a file, which is created by the first one. Safe to use from several threads.

    Raises:
        DatasetError: the file is not a CSV file of corrections; the line is named.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found: dict[str, dict[frozenset[int], Correction]] = {}
        if path.exists():
            for correction in _read(path):
                self._found.setdefault(correction.record, {})[correction.pair] = correction

    def add(self, correction: Correction) -> None:
        """Append one; it is on the disk before this returns."""
        p = "" if correction.p is None else f"{correction.p:g}"
        values = (correction.record, correction.first, correction.second, p, correction.note, correction.by)
        with self._lock:
            append_row(self._path, dict(zip(COLUMNS, values, strict=True)))
            self._found.setdefault(correction.record, {})[correction.pair] = correction

    def of(self, record: str) -> Mapping[frozenset[int], Correction]:
        """The corrections of a record, by its pairs."""
        return dict(self._found.get(record, {}))

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def apply(self, group: PreferenceGroup) -> PreferenceGroup:
        """The group with its corrected comparisons; a pair that had none gains one.

        Raises:
            RecordError: a correction names a candidate that the record lacks.
        """
        found = self.of(group.id)
        kept = [c for c in group.comparisons if frozenset((c.i, c.j)) not in found]
        weights = {frozenset((c.i, c.j)): c.weight for c in group.comparisons}
        new = [
            Comparison(i=one.first, j=one.second, p=one.p, weight=weights.get(pair, 1.0))
            for pair, one in found.items()
            if one.p is not None
        ]
        return replace(group, comparisons=(*kept, *new)) if found else group

    def apply_all(self, groups: Iterable[PreferenceGroup], seen: set[str]) -> Iterator[PreferenceGroup]:
        """Each group as of `apply`; adds the ids of corrected ones to `seen`. Raises as `apply`."""
        for group in groups:
            if group.id in self._found:
                seen.add(group.id)
            yield self.apply(group)

    def records(self) -> set[str]:
        """The ids of the corrected records."""
        return set(self._found)


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Append a row to a CSV file, after a header if it is new; the row is on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Iterator[Correction]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise DatasetError(f"{path} lacks the columns {', '.join(sorted(missing))} of corrections")
            for row in rows:
                try:
                    yield Correction(
                        record=row["record"],
                        first=int(row["first"]),
                        second=int(row["second"]),
                        p=float(row["p"]) if row["p"] else None,
                        note=row["note"] or "",
                        by=row["by"] or "",
                    )
                except (ValueError, TypeError, RecordError) as error:
                    raise DatasetError(f"{path}, line {rows.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as corrections: {error}") from error
