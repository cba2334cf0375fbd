"""The thread of a scorer: one call at a time, halved when memory runs out, watched for how long it takes.

Between two passes of a long call another may be let in, if the scorer says when that is.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from prefrm.errors import OutOfMemoryError
from prefrm.winmatrix import Group, Outcome, Scorer, score_each

__all__ = ["Done", "Pausing", "Worker"]


@runtime_checkable
class Pausing(Protocol):
    """A scorer that calls `on_pass` where it may be given other groups, such as `prefrm.engine.Engine`."""

    on_pass: Callable[[], None] | None


Done = Callable[[list[Outcome] | BaseException], None]
"""Told, in the worker's thread, what came of a call."""
_Work = tuple[Sequence[Group], Done]


class Worker:
    """Calls a scorer from a thread of its own. A daemon, unlike an executor's: a busy one delays no exit.

    Args:
        scorer: what is called.
        pausing: the scorer, or what is inside it, if it pauses between its passes.
    """

    def __init__(self, scorer: Scorer, pausing: Pausing | None = None) -> None:
        self._scorer = scorer
        self._pausing = pausing
        # None ends the thread; an empty item wakes it for what is urgent.
        self._inbox: SimpleQueue[_Work | tuple[()] | None] = SimpleQueue()
        self._urgent: deque[_Work] = deque()
        self._again: list[_Work] = []
        self._thread = 0
        self._active_at: float | None = None
        self._started = 0.0
        self._lent = 0.0
        self._is_interrupted = False
        self.pauses = pausing is not None
        if pausing is not None:
            pausing.on_pass = self._pause

    def start(self) -> None:
        """Begin to work."""
        threading.Thread(target=self._run, name="scorer", daemon=True).start()

    def submit(self, groups: Sequence[Group], done: Done) -> None:
        """Score groups when those before are done."""
        self._inbox.put((groups, done))

    def interrupt(self, groups: Sequence[Group], done: Done) -> None:
        """Score groups at the next pause of the call in progress, or after it.

        A call is not held up for longer than it has worked itself, so it takes at most twice as long.
        """
        self._urgent.append((groups, done))
        self._inbox.put(())

    def stop(self) -> None:
        """End the thread once it is idle, and let go of the scorer."""
        self._inbox.put(None)

    @property
    def busy_s(self) -> float:
        """Seconds since the call in progress began or last paused, or 0."""
        since = self._active_at
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        self._thread = threading.get_ident()
        while (work := self._inbox.get()) is not None:
            self._started, self._lent = time.monotonic(), 0.0
            while self._urgent:
                self._do(self._urgent.popleft())
            if work:
                self._do(work)
            while self._again:
                self._do(self._again.pop(0))
            # Nothing of a batch stays here until the next one comes.
            del work
        if self._pausing is not None:
            self._pausing.on_pass = None
        del self._scorer, self._pausing

    def _pause(self) -> None:
        # Someone else may use the scorer as well, from another thread.
        if threading.get_ident() != self._thread:
            return
        now = time.monotonic()
        self._active_at = now
        own = now - self._started - self._lent
        if self._is_interrupted or not self._urgent or own < self._lent:
            return
        self._is_interrupted = True
        work = self._urgent.popleft()
        result = self._result(work[0])
        self._is_interrupted = False
        self._active_at = time.monotonic()
        self._lent += self._active_at - now
        if _lacked_memory(result):
            # What it lacks is what the interrupted call holds.
            self._again.append(work)
        else:
            work[1](result)

    def _do(self, work: _Work) -> None:
        groups, done = work
        self._active_at = time.monotonic()
        result = self._result(groups)
        self._active_at = None
        done(result)

    def _result(self, groups: Sequence[Group]) -> list[Outcome] | BaseException:
        try:
            return score_each(self._scorer, groups)
        except BaseException as error:
            return error


def _lacked_memory(result: list[Outcome] | BaseException) -> bool:
    return isinstance(result, list) and any(isinstance(outcome, OutOfMemoryError) for outcome in result)
