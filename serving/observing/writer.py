"""Lines written by a thread, so that a pipe that nobody reads or a disk that hangs never blocks a caller."""

import os
import select
import threading
import time
from collections.abc import Callable

__all__ = ["LIMIT", "LineWriter", "write_all"]

# Bytes that wait before lines are dropped: some ten thousand requests.
LIMIT = 4 * 2**20
# Seconds between two writes: writing single lines would take turns with a busy event loop.
PAUSE_S = 0.01


class LineWriter:
    """A bounded queue of lines and the daemon thread that writes them, in order.

    Once the queue is full, lines are dropped until all of it is written; then one line reports how many.
    Lines that cannot be written are dropped as well, and reported before the next one that can.

    Args:
        write: writes bytes; may block, and raise `OSError`.
        report: the line that reports a number of dropped lines.
        limit: bytes that may wait.

    Attributes:
        dropped: the number of lines dropped so far.
    """

    def __init__(
        self, write: Callable[[bytes], object], report: Callable[[int], bytes], limit: int = LIMIT
    ) -> None:
        self.dropped = 0
        self._write, self._report, self._limit = write, report, limit
        self._changed = threading.Condition()
        self._lines: list[bytes] = []
        # Bytes that wait or are being written.
        self._size = 0
        self._full = False
        self._unreported = 0
        self._started = False

    def put(self, line: bytes) -> None:
        """Queue a line, or drop it. Never blocks."""
        with self._changed:
            self._full = self._full or self._size + len(line) > self._limit
            if self._full:
                self._count(1)
                return
            self._size += len(line)
            self._lines.append(line)
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="log-writer", daemon=True).start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until every queued line is written, for at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._size or self._full), timeout)

    def _run(self) -> None:
        while True:
            lines, reported = self._take()
            try:
                self._write(b"".join(lines))
                failed = False
            except OSError:
                failed = True
            with self._changed:
                if failed:
                    self._unreported += reported
                    self._count(len(lines) - bool(reported))
                self._size -= sum(map(len, lines))
                self._changed.notify_all()
            time.sleep(PAUSE_S)

    def _take(self) -> tuple[list[bytes], int]:
        """The next lines, and how many dropped ones the first of them reports."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._full)
            lines, self._lines = self._lines, []
            # What was dropped came after the lines that were queued by then.
            if not self._unreported or (self._full and lines):
                return lines, 0
            reported, self._unreported, self._full = self._unreported, 0, False
            report = self._report(reported)
            self._size += len(report)
            return [report, *lines], reported

    def _count(self, dropped: int) -> None:
        self.dropped += dropped
        self._unreported += dropped


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it to an open file. Blocks; raises `OSError`."""
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # The mode is shared with whoever else has the pipe open, such as a parent in Node.js.
            select.select([], [descriptor], [])
