"""The thread of a scorer: one call at a time, halved when memory runs out, watched for how long it takes."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from prefrm.errors import OutOfMemoryError
from prefrm.winmatrix import Group, Scorer, WinMatrix, check_answer

__all__ = ["Outcome", "Worker", "score_each"]

logger = logging.getLogger(__name__)

Outcome = WinMatrix | OutOfMemoryError
"""Of one group: its matrix, or that memory does not suffice for it alone."""


_Work = tuple[Sequence[Group], Callable[[list[Outcome] | BaseException], None]]


class Worker:
    """Calls a scorer from a thread of its own. A daemon, unlike an executor's: a busy one delays no exit."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._inbox: SimpleQueue[_Work | None] = SimpleQueue()
        self._busy_since: float | None = None

    def start(self) -> None:
        """Begin to work."""
        threading.Thread(target=self._run, name="scorer", daemon=True).start()

    def submit(self, groups: Sequence[Group], done: Callable[[list[Outcome] | BaseException], None]) -> None:
        """Score groups when those before are done; `done` is told, in the thread, what came of it."""
        self._inbox.put((groups, done))

    def stop(self) -> None:
        """End the thread once it is idle."""
        self._inbox.put(None)

    @property
    def busy_s(self) -> float:
        """Seconds that the call in progress has taken, or 0."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            groups, done = work
            self._busy_since = time.monotonic()
            result: list[Outcome] | BaseException
            try:
                result = score_each(self._scorer, groups)
            except BaseException as error:
                result = error
            self._busy_since = None
            done(result)
            # Nothing of a batch stays here until the next one comes.
            del work, groups, done, result


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
