"""Requests on threads: several of one call side by side, and one that is watched. Knows nothing of either.

Threads are kept for later calls of any scorer, since a thread brings its own connections and event hub. They
are daemons: a request that nobody waits for any more holds up neither a call nor the program's end.
"""

import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

__all__ = ["side_by_side", "watched"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Job = Callable[[], None]

# The threads of this process that have nothing to do: what each waits for its next job at.
_idle: list[SimpleQueue[Job]] = []
# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_idle.clear)


def side_by_side(
    work: Callable[[Item, threading.Event], Answer], items: Sequence[Item], *, at_once: int
) -> list[Answer]:
    """`work(item, over)` of each item, in order, so many at a time.

    The first failure, or an interruption of the caller, is raised at once: `over` is set, what has not begun
    is left out, and what has is left to itself.
    """
    over, done = threading.Event(), SimpleQueue[tuple[int, Answer] | BaseException]()
    waiting = list(enumerate(items))[::-1]

    def job() -> None:
        while waiting and not over.is_set():
            try:
                n, item = waiting.pop()
            except IndexError:
                return
            try:
                done.put((n, work(item, over)))
            except BaseException as error:
                done.put(error)

    answers: dict[int, Answer] = {}
    try:
        for _ in range(min(at_once, len(items))):
            _start(job)
        while len(answers) < len(items):
            outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            answers[outcome[0]] = outcome[1]
    finally:
        over.set()
    return [answers[n] for n in range(len(items))]


def watched(work: Callable[[], Answer], look: Callable[[], None], *, every: float) -> Answer:
    """`work()`, which may take its time as long as `look()`, called each time so many seconds have passed,
    raises nothing; what it raises is raised, and the work is left to itself."""
    done = SimpleQueue[tuple[Answer] | BaseException]()

    def job() -> None:
        try:
            done.put((work(),))
        except BaseException as error:
            done.put(error)

    _start(job)
    while True:
        try:
            outcome = done.get(timeout=every)
        except Empty:
            look()
            continue
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome[0]


def _start(job: Job) -> None:
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        threading.Thread(target=_serve, args=(inbox,), name="prefrm-client", daemon=True).start()
    inbox.put(job)


def _serve(inbox: "SimpleQueue[Job]") -> None:
    while True:
        job = inbox.get()
        job()
        # Or the last call's images would be kept until the next.
        del job
        _idle.append(inbox)
