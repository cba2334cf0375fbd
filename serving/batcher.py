"""A bounded queue in front of a scorer: what has gathered while it worked is scored together.

The scorer runs in one thread of its own, one call at a time, and gets work the moment it is idle. The
batcher waits for nobody and looks into no group. Nobody waits for the thread either: a process ends though
its scorer is still busy.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from prefrm.errors import PrefrmError
from prefrm.winmatrix import Group, Scorer, WinMatrix, check_answer
from serving.errors import ExpiredError, FailedError, NotReadyError, OverloadedError
from serving.limits import Limits
from serving.stats import Stats

__all__ = ["Batcher"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class _Work:
    groups: Sequence[Group]
    content_bytes: int
    arrived: float
    expires: float
    answer: asyncio.Future[list[WinMatrix]]


class Batcher:
    """Queue, worker thread and the task that feeds it. Lives in one event loop.

    Args:
        scorer: what judges; called from the worker thread only.
        limits: how much may wait, and how much is scored together.
        stats: told of each batch.
    """

    def __init__(self, scorer: Scorer, limits: Limits, stats: Stats) -> None:
        self._worker = _Worker(scorer)
        self._limits = limits
        self._stats = stats
        self._queue: deque[_Work] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work off the queue, on the running event loop."""
        self._worker.start()
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def submit(self, groups: Sequence[Group], *, timeout: float | None = None) -> list[WinMatrix]:
        """Queue groups and wait for their matrices. Cancelling this before their turn spares the work.

        Raises:
            OverloadedError: the queue has no room for them.
            ExpiredError: their turn came after `timeout` seconds.
            FailedError: the scorer raised, or returned no matching matrices.
            NotReadyError: the server stopped first.
        """
        content_bytes = sum(len(image or b"") for group in groups for image in group.images)
        self._admit(len(groups), content_bytes)
        now = time.monotonic()
        work = _Work(
            groups=groups,
            content_bytes=content_bytes,
            arrived=now,
            expires=now + timeout if timeout is not None else float("inf"),
            answer=asyncio.get_running_loop().create_future(),
        )
        self._queue.append(work)
        self._wake.set()
        return await work.answer

    async def drain(self, timeout: float) -> None:
        """Work off what is queued, for at most `timeout` seconds, and stop; what is left is turned away."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=timeout)
            if late:
                logger.warning("the scorer was still busy after %g s; its requests are turned away", timeout)
            self._task.cancel()
        for work in self._queue:
            _fail(work, NotReadyError("the server stopped before this request's turn"))
        self._worker.stop()

    def _admit(self, groups: int, content_bytes: int) -> None:
        if self._stopping:
            raise NotReadyError("the server is stopping")
        waiting = [work for work in self._queue if not work.answer.done()]
        queued_groups = sum(len(work.groups) for work in waiting)
        queued_bytes = sum(work.content_bytes for work in waiting)
        if (
            queued_groups + groups > self._limits.queued_groups
            or queued_bytes + content_bytes > self._limits.queued_bytes
        ):
            raise OverloadedError(f"the queue is full: {queued_groups} groups are waiting; try again later")

    async def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                await self._score(batch)
            elif self._stopping:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_batch(self) -> list[_Work]:
        batch: list[_Work] = []
        count = 0
        while self._queue:
            work = self._queue[0]
            if batch and count + len(work.groups) > self._limits.batch_groups:
                break
            self._queue.popleft()
            if time.monotonic() >= work.expires:
                _fail(work, ExpiredError("the request waited longer than its timeout"))
            elif not work.answer.done():
                batch.append(work)
                count += len(work.groups)
        return batch

    async def _score(self, batch: list[_Work]) -> None:
        groups = [group for work in batch for group in work.groups]
        started = time.monotonic()
        try:
            matrices = await asyncio.wrap_future(self._worker.submit(groups))
            check_answer(matrices, groups)
        except asyncio.CancelledError:
            for work in batch:
                _fail(work, NotReadyError("the server stopped before this request was scored"))
            raise
        # Whatever a scorer raises concerns this batch; the server goes on.
        except Exception as error:
            logger.exception("scoring a batch of %d groups failed", len(groups))
            for work in batch:
                _fail(work, FailedError(f"scoring failed: {_described(error)}"))
            return
        seconds = time.monotonic() - started
        self._stats.batch(matrices, seconds=seconds, waits=[started - work.arrived for work in batch])
        answers = iter(matrices)
        for work in batch:
            own = [next(answers) for _ in work.groups]
            if not work.answer.done():
                work.answer.set_result(own)


class _Worker:
    """The scorer's thread. A daemon, unlike an executor's, so that a busy one holds up nobody's end."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._inbox: SimpleQueue[tuple[Sequence[Group], Future[list[WinMatrix]]] | None] = SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._run, name="scorer", daemon=True).start()

    def submit(self, groups: Sequence[Group]) -> Future[list[WinMatrix]]:
        answer: Future[list[WinMatrix]] = Future()
        self._inbox.put((groups, answer))
        return answer

    def stop(self) -> None:
        """End the thread once it is idle."""
        self._inbox.put(None)

    def _run(self) -> None:
        while (work := self._inbox.get()) is not None:
            groups, answer = work
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._scorer.score(groups))
                except BaseException as error:
                    answer.set_exception(error)


def _fail(work: _Work, error: PrefrmError) -> None:
    if not work.answer.done():
        work.answer.set_exception(error)


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, PrefrmError) else f"{type(error).__name__}: {error}"
