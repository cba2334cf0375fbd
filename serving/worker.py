"""The thread of a scorer: one call at a time, halved when memory runs out, watched for how long it takes.

Between two passes of a long call another may be let in, if the scorer says when that is.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from prefrm.errors import OutOfMemoryError
from prefrm.winmatrix import Group, Scorer, WinMatrix, check_answer

__all__ = ["Outcome", "Pausing", "Worker", "score_each"]

logger = logging.getLogger(__name__)

Outcome = WinMatrix | OutOfMemoryError
"""Of one group: its matrix, or that memory does not suffice for it alone."""


@runtime_checkable
class Pausing(Protocol):
    """A scorer that calls `on_pass` where it may be given other groups, such as `prefrm.engine.Engine`."""

    on_pass: Callable[[], None] | None


_Work = tuple[Sequence[Group], Callable[[list[Outcome] | BaseException], None]]


class Worker:
    """Calls a scorer from a thread of its own. A daemon, unlike an executor's: a busy one delays no exit.

    Args:
        scorer: what is called.
        pausing: the scorer, or what is inside it, if it pauses between its passes.
    """

    def __init__(self, scorer: Scorer, pausing: Pausing | None = None) -> None:
        self._scorer = scorer
        self._inbox: SimpleQueue[_Work | None] = SimpleQueue()
        self._urgent: SimpleQueue[_Work] = SimpleQueue()
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

    def submit(self, groups: Sequence[Group], done: Callable[[list[Outcome] | BaseException], None]) -> None:
        """Score groups when those before are done; `done` is told, in the thread, what came of it."""
        self._inbox.put((groups, done))

    def interrupt(
        self, groups: Sequence[Group], done: Callable[[list[Outcome] | BaseException], None]
    ) -> None:
        """Score groups at the next pause of the call in progress, or after it.

        A call is not held up for longer than it has worked itself, so it takes at most twice as long.
        """
        self._urgent.put((groups, done))

    def stop(self) -> None:
        """End the thread once it is idle."""
        self._inbox.put(None)

    @property
    def busy_s(self) -> float:
        """Seconds since the call in progress began or last paused, or 0."""
        since = self._active_at
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            self._started, self._lent = time.monotonic(), 0.0
            self._do(work)
            # Nothing of a batch stays here until the next one comes.
            del work
            while not self._urgent.empty():
                self._do(self._urgent.get())

    def _pause(self) -> None:
        now = time.monotonic()
        self._active_at = now
        own = now - self._started - self._lent
        if self._is_interrupted or self._urgent.empty() or own < self._lent:
            return
        self._is_interrupted = True
        self._do(self._urgent.get())
        self._is_interrupted = False
        self._active_at = time.monotonic()
        self._lent += self._active_at - now

    def _do(self, work: _Work) -> None:
        groups, done = work
        self._active_at = time.monotonic()
        result: list[Outcome] | BaseException
        try:
            result = score_each(self._scorer, groups)
        except BaseException as error:
            result = error
        self._active_at = None
        done(result)


def score_each(scorer: Scorer, groups: Sequence[Group]) -> list[Outcome]:
    """The outcome of each group, of as many together as memory allows.

    Raises:
        ProtocolError: the scorer did not answer with one matrix for each group.
        Exception: what the scorer raises, but for `OutOfMemoryError`.
    """
    try:
        matrices = scorer.score(groups)
    except OutOfMemoryError as error:
        if len(groups) == 1:
            return [OutOfMemoryError(str(error))]
        reason = str(error)
    else:
        check_answer(matrices, groups)
        return list(matrices)
    # Here and not above: while an error is handled, it keeps in memory what could not be finished.
    logger.warning("a batch of %d groups is halved: %s", len(groups), reason)
    half = len(groups) // 2
    return score_each(scorer, groups[:half]) + score_each(scorer, groups[half:])
