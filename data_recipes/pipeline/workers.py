"""Jobs in several processes, with results in the order of the jobs and few of them in memory."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from prefrm.errors import DatasetError

__all__ = ["in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2  # jobs of a process that are under way or wait for it


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], processes: int
) -> Iterator[tuple[Job, Result]]:
    """(job, result) of each job, in order.

    Args:
        work: called in this process if `processes` is 1, and sent to each of the others once otherwise.
        jobs: drawn a few ahead.
        processes: how many work. They are started once there is a second job.
    """
    rest = iter(jobs)
    for first in rest:
        yield first, work(first)
        if processes > 1:
            yield from _in_processes(work, rest, processes)
    return


def _in_processes(
    work: Callable[[Job], Result], jobs: Iterator[Job], processes: int
) -> Iterator[tuple[Job, Result]]:
    # A forked process would inherit the locks of this one's threads.
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("forkserver"), initializer=_start, initargs=(work,)
    )
    waiting: deque[tuple[Job, Future[Any]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(_run, job)))
            if len(waiting) >= AHEAD * processes:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process ended unexpectedly, perhaps because memory ran out; "
            "run the same command again with fewer --processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_work: Callable[[Any], Any]


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # Ctrl-C goes to every process of a terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _run(job: Any) -> Any:
    return _work(job)


def _end_with_parent() -> None:
    """Exit when the parent does: a parent that is killed does not shut down its pool."""
    parent = parent_process()
    assert parent is not None, "this runs in a child"
    wait([parent.sentinel])
    os._exit(1)
