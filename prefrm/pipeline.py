"""Scoring of a stream of batches, in order: batches are prepared ahead, and calls of a remote scorer overlap.

A local scorer is called in the caller's own thread, where an interruption reaches it and the state that torch
keeps for each thread holds. Memory is bounded by the batches that are prepared and under way.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

from prefrm.chunks import chunks, runs_within
from prefrm.winmatrix import ConcurrentScorer, CostedScorer, Group, Scorer, WinMatrix, score_all

__all__ = ["batched", "prefetch", "score_batches"]

T = TypeVar("T")
Job = tuple[Future[list[WinMatrix]], Sequence[Group]]

# Groups a call. The images of 16 groups of 4 fill the passes that a local engine shares among groups. Each
# replica of a remote scorer holds two calls, and the second waits for the first within its own deadline.
LOCAL_BATCH, REMOTE_BATCH = 16, 8
# Batches in the hands of the caller and of the thread that prepares them: one is scored, the next is ready.
AHEAD = 2
# A source that hangs while it is read must not hold up an interruption for longer.
JOIN_S = 5.0


def batched(
    scorer: Scorer,
    items: Iterable[T],
    groups_of: Callable[[Sequence[T]], Sequence[Group]],
    batch: int | None = None,
) -> Iterator[list[T]]:
    """Items in batches, each for one call of a scorer; they are drawn as they are needed.

    With few groups a call, where these are large, progress is shown often and little is lost by a stop.

    Args:
        scorer: any scorer.
        items: such as records.
        groups_of: the groups of some of them.
        batch: items a call; None for what suits the scorer: a fixed number, or as many as are worth a call
            of a `CostedScorer`.

    Raises:
        ConfigError: `batch` is less than 1.
    """
    if batch is not None:
        return chunks(items, batch)
    if isinstance(scorer, ConcurrentScorer):
        return chunks(items, REMOTE_BATCH)
    if not isinstance(scorer, CostedScorer):
        return chunks(items, LOCAL_BATCH)
    # The least is the share of one of `LOCAL_BATCH`.
    costs = (
        (item, max(scorer.call_cost, LOCAL_BATCH * sum(map(scorer.cost, groups_of([item])))))
        for item in items
    )
    return runs_within(costs, LOCAL_BATCH * scorer.call_cost)


def score_batches(
    scorer: Scorer, batches: Iterable[T], groups_of: Callable[[T], Sequence[Group]]
) -> Generator[tuple[T, list[WinMatrix]], None, None]:
    """Each batch with the matrices of its groups, in order.

    The first failure, in the order of the batches, is raised in the failed batch's place; calls under way are
    then left to themselves. Close the generator to stop early.

    Args:
        scorer: any scorer; a `ConcurrentScorer` gets several calls at once.
        batches: drawn in another thread, at most a few ahead.
        groups_of: the groups of a batch; called in that thread, too.

    Raises:
        ScoringError: the scorer cannot answer, or not with one matrix for each group.
    """
    with closing(prefetch(((batch, groups_of(batch)) for batch in batches), AHEAD)) as prepared:
        if isinstance(scorer, ConcurrentScorer):
            yield from _overlapping(scorer, prepared)
        else:
            for batch, groups in prepared:
                yield batch, score_all(scorer, groups)


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items, drawn by a thread, which is at most `depth` ahead of what is done. Raises as they raise."""
    room, over = threading.Semaphore(depth), threading.Event()
    drawn = SimpleQueue[tuple[T] | BaseException]()

    def draw() -> None:
        rest = iter(items)
        try:
            while room.acquire() and not over.is_set():
                drawn.put((next(rest),))
        except BaseException as error:
            drawn.put(error)

    thread = threading.Thread(target=draw, name="prefrm-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(outcome := drawn.get(), BaseException):
            yield outcome[0]
            del outcome
            room.release()
        if not isinstance(outcome, StopIteration):
            raise outcome
    finally:
        over.set()
        room.release()
        thread.join(JOIN_S)


def _overlapping(
    scorer: ConcurrentScorer, prepared: Iterable[tuple[T, Sequence[Group]]]
) -> Iterator[tuple[T, list[WinMatrix]]]:
    """As `score_batches`, with `concurrency` calls under way and as many batches ready behind them."""
    jobs = SimpleQueue[Job | None]()
    waiting: deque[tuple[T, Future[list[WinMatrix]]]] = deque()
    # Daemon threads: an abandoned call does not delay the program's end.
    for _ in range(scorer.concurrency):
        threading.Thread(target=_work, args=(scorer, jobs), name="prefrm-scoring", daemon=True).start()
    try:
        for batch, groups in prepared:
            waiting.append((batch, Future()))
            jobs.put((waiting[-1][1], groups))
            if len(waiting) == 2 * scorer.concurrency:
                yield _finished(waiting)
        while waiting:
            yield _finished(waiting)
    finally:
        for _, future in waiting:
            future.cancel()
        for _ in range(scorer.concurrency):
            jobs.put(None)


def _finished(waiting: deque[tuple[T, Future[list[WinMatrix]]]]) -> tuple[T, list[WinMatrix]]:
    batch, future = waiting.popleft()
    return batch, future.result()


def _work(scorer: Scorer, jobs: "SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        future, groups = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(score_all(scorer, groups))
            except BaseException as error:
                future.set_exception(error)
        # Or a thread would keep its last batch while it waits.
        del job, future, groups
