"""How far long work has come: a bar with an estimate on a terminal, plain lines anywhere else.

Everything goes to standard error, so that standard output stays what a program can read.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Advance", "Tracker", "Tracking", "track", "untracked", "waiting"]

Advance = Callable[[int], None]
"""Called with how much is done so far (not with an increment)."""
Tracking = Callable[[int], AbstractContextManager[Advance]]
"""Opened with the number of units of work by who finds it out, such as `partial(track, label)`."""


class Tracker(Protocol):
    """An `Advance` that also shows numbers and lines."""

    def __call__(self, done: int, numbers: str = "") -> None:
        """Show how much is done so far, beside numbers of the moment."""

    def say(self, line: str) -> None:
        """Print a line that stays."""


SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def track(label: str, total: int | None, done: int = 0) -> Iterator[Tracker]:
    """Show the progress of `total` units of work, of which some may be done, while the block runs.

    A total of None is not known: no time is estimated.

    The block reports through the function that it is given: `advance(done)`.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            yield _Bar(bar, bar.add_task(label, total=total, completed=done, numbers=""))
    else:
        yield _Lines(label, total, done)


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show the elapsed time of work of unknown length while the block runs.

    On a terminal that is a moving bar, anywhere else a line now and then.
    """
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            bar.add_task(label, total=None)
            yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_print_seconds, args=(label, over), name="prefrm-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _print_seconds(label: str, over: threading.Event) -> None:
    started = time.monotonic()
    while not over.wait(SECONDS_BETWEEN_LINES):
        print(f"{label}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def untracked(total: int) -> Iterator[Advance]:
    """A `Tracking` that shows nothing."""
    yield lambda done: None


class _Bar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, done: int, numbers: str = "") -> None:
        self._bar.update(self._task, completed=done, numbers=numbers)

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)


class _Lines:
    """A line now and then, and one at the end where there are numbers to show."""

    def __init__(self, label: str, total: int | None, done: int) -> None:
        self._label, self._total, self._before = label, total, done
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, numbers: str = "") -> None:
        now = time.monotonic()
        last = bool(numbers) and done == self._total
        if done <= self._before or (now - self._printed < SECONDS_BETWEEN_LINES and not last):
            return
        self._printed = now
        parts = [str(done), numbers]
        if self._total is not None:
            left = (now - self._started) / (done - self._before) * (self._total - done)
            parts = [f"{done}/{self._total}", numbers, "" if last else f"about {left:.0f} s left"]
        self.say(f"{self._label}: {', '.join(filter(None, parts))}")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
