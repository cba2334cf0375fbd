"""How far long work has come: a bar with an estimate on a terminal, plain lines anywhere else.

Everything goes to standard error, so that standard output stays what a program can read.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Advance", "track"]

Advance = Callable[[int], None]
"""Called with how much is done so far (not with an increment)."""

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def track(label: str, total: int) -> Iterator[Advance]:
    """Show the progress of `total` units of work while the block runs.

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
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield _plain_lines(label, total)


def _plain_lines(label: str, total: int) -> Advance:
    started = printed = time.monotonic()

    def advance(done: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed < SECONDS_BETWEEN_LINES or not done:
            return
        printed = now
        left = (now - started) / done * (total - done)
        print(f"{label}: {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return advance
