"""A training run as it is on disk while it trains: metrics and logged groups. No page and no trainer.

Metrics are read of the first of these that is there:

metrics.jsonl                          of `prefrm train`, `prefrm flow` and `prefrm.train.MetricsFile`
**/events.out.tfevents.*               TensorBoard, as TRL and accelerate write it
checkpoint-*/trainer_state.json        the log of `transformers` and TRL
"""

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from prefrm.errors import DataError
from prefrm.group_log import GroupLogReader, LoggedEntry
from prefrm.records import import_pyarrow
from prefrm.winmatrix import Group, matrix_metrics

__all__ = ["Points", "Run", "group_metrics", "thinned"]

T = TypeVar("T")
Points = list[tuple[float, float]]
"""Steps and values of a metric, in order of steps."""

STEPS = ("iteration", "step")
# Of a metric that is drawn: more than a chart has pixels are not seen.
MOST_POINTS = 300
NANO = 10**9
# Of `matrix_metrics`, with their titles.
GROUP_METRICS = {
    "invalid_pairs": "groups/unjudged pairs",
    "order_gap": "groups/order gap",
    "win_rate_std": "groups/win-rate spread",
}
EVENTS, STATE = "events.out.tfevents.*", "trainer_state.json"


class Run:
    """A folder that a run writes into. Its files are read again when they have changed.

    Args:
        folder: of the run; it need not have anything in it yet.
        name: that people see.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._seen: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._events: Any = None
        self._logs: dict[Path, GroupLogReader] = {}

    def metrics(self) -> dict[str, Points]:
        """Points of each metric by its name, finite values alone; none if nothing was written yet."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            return self._parsed(path, _json_lines)
        if found := self._event_metrics():
            return found
        states = sorted(self.folder.glob(f"checkpoint-*/{STATE}"), key=_modified)
        states = [one for one in [self.folder / STATE] if one.exists()] or states
        return self._parsed(states[-1], _log_history) if states else {}

    def changed(self) -> float:
        """When what was read last was written, in seconds since the epoch; 0 if nothing was."""
        return max((state[0] / NANO for state, _ in self._seen.values()), default=0.0)

    def entries(self) -> list[LoggedEntry]:
        """The logged groups, the newest first, with TRL's advantages where it writes completions.

        Raises:
            DatasetError: a file of the log is damaged; names it.
        """
        places = [self.folder, *sorted(path for path in self.folder.glob("*/") if path.is_dir())]
        for place in places:
            if place not in self._logs and next(place.glob("*-*-*-*.parquet"), None) is not None:
                self._logs[place] = GroupLogReader(place)
        found = [
            replace(entry, id=f"{place.relative_to(self.folder)}:{entry.id}")
            for place, log in self._logs.items()
            for entry in log.entries()
        ]
        found.sort(key=lambda entry: entry.time, reverse=True)
        return [self._with_advantages(entry) for entry in found]

    def group(self, id: str) -> Group:
        """The content of an entry's group. Raises `DataError` if it is not, or no longer, in the log."""
        place, _, inner = id.partition(":")
        for folder, log in self._logs.items():
            if str(folder.relative_to(self.folder)) == place:
                return log.group(inner)
        raise DataError(f"the run has no log of groups {place!r}")

    def _parsed(self, path: Path, parse: Callable[[Path], dict[str, T]]) -> dict[str, T]:
        """The columns that `parse` reads of a file, once for each state of it; none of one that is gone."""
        found: dict[str, T] = self._seen[path][1] if path in self._seen else {}
        # A file that is being written in place, as TRL does, may not be whole.
        with contextlib.suppress(FileNotFoundError, ValueError):
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
            if path not in self._seen or self._seen[path][0] != state:
                found = parse(path)
                self._seen[path] = (state, found)
        return found

    def _event_metrics(self) -> dict[str, Points]:
        newest = max(self.folder.rglob(EVENTS), key=_modified, default=None)
        if newest is None:
            return {}
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            return {}
        if self._events is None or Path(self._events.path) != newest.parent:
            self._events = EventAccumulator(str(newest.parent), size_guidance={"scalars": 0})
        self._events.Reload()
        self._parsed(newest, _nothing)
        return {
            name: [(one.step, one.value) for one in self._events.Scalars(name) if math.isfinite(one.value)]
            for name in self._events.Tags()["scalars"]
        }

    def _with_advantages(self, entry: LoggedEntry) -> LoggedEntry:
        if entry.advantages is not None or entry.step is None or entry.evaluation:
            return entry
        path = self.folder / "completions" / f"completions_{entry.step:05d}.parquet"
        if not path.exists():
            return entry
        return replace(entry, advantages=_advantages(entry, self._parsed(path, _columns)))


def group_metrics(entries: Sequence[LoggedEntry]) -> dict[str, Points]:
    """What the logged groups of training steps say of each step: means over its groups.

    "order gap" and "unjudged pairs" rise and "win-rate spread" changes when a policy leaves what its judge
    can tell apart; the mean win rate of a group is 0.5 whatever happens. Each is of a group's first matrix.
    """
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if entry.step is None or entry.evaluation or not entry.matrices:
            continue
        found = matrix_metrics(next(iter(entry.matrices.values())))
        for name, title in GROUP_METRICS.items():
            if name in found:
                values[title][entry.step].append(found[name])
    return {
        name: [(step, float(np.mean(several))) for step, several in sorted(steps.items())]
        for name, steps in sorted(values.items())
    }


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most `most` points: means over equal parts; the last point is kept as it is."""
    if len(points) <= most:
        return points
    *before, last = points
    means = [part.mean(axis=0).tolist() for part in np.array_split(np.array(before), most - 1)]
    return [*((step, value) for step, value in means), last]


def _nothing(path: Path) -> dict[str, Points]:
    return {}


def _json_lines(path: Path) -> dict[str, Points]:
    lines = path.read_text(encoding="utf-8").splitlines()
    # The last line may be half written.
    return _by_name(map(json.loads, takewhile(lambda line: line.endswith("}"), lines)))


def _log_history(path: Path) -> dict[str, Points]:
    return _by_name(json.loads(path.read_text(encoding="utf-8"))["log_history"])


def _by_name(lines: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    found: dict[str, Points] = defaultdict(list)
    for line in lines:
        step = next((line[name] for name in STEPS if name in line), None)
        if step is None:
            continue
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in STEPS and number and math.isfinite(value):
                found[name].append((step, value))
    # A resumed flow run may evaluate its policy before training after its first steps.
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def _columns(path: Path) -> dict[str, list[Any]]:
    pa, pq = import_pyarrow()
    try:
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not complete") from error
    return columns


def _advantages(entry: LoggedEntry, columns: Mapping[str, list[Any]]) -> tuple[float, ...] | None:
    """Those of the rows of TRL's completions that have the rewards of this group, and its prompt."""
    names = [name for name in entry.rewards if name in columns]
    if not names or "advantage" not in columns:
        return None
    matching = [
        start
        for start in range(0, len(columns["advantage"]) - entry.size + 1, entry.size)
        if all(
            np.array_equal(
                np.array(columns[name][start : start + entry.size], dtype=np.float32),
                np.array(entry.rewards[name], dtype=np.float32),
                equal_nan=True,
            )
            for name in names
        )
    ]
    of_prompt = [start for start in matching if entry.prompt in str(columns["prompt"][start])]
    for start in of_prompt or matching:
        return tuple(columns["advantage"][start : start + entry.size])
    return None


def _modified(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
