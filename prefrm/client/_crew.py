"""A few threads that do the parts of one call side by side. Knows nothing of what they do."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Crew"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Job = Callable[[], None]


class Crew(Generic[Item, Answer]):
    """At most `size` threads, started when they are first needed; calls of several threads share them.

    They are daemons: a request that nobody waits for any more holds up neither a call nor the program's end.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = 0

    def map(self, work: Callable[[Item, threading.Event], Answer], items: Sequence[Item]) -> list[Answer]:
        """`work(item, over)` of each item, in order.

        The first failure, or an interruption of the caller, is raised at once: `over` is set, what has not
        begun is left out, and what has is left to itself.
        """
        over, done = threading.Event(), SimpleQueue[tuple[int, Answer | None, BaseException | None]]()

        def job(n: int, item: Item) -> None:
            if over.is_set():
                return
            try:
                done.put((n, work(item, over), None))
            except BaseException as error:
                done.put((n, None, error))

        answers: dict[int, Answer] = {}
        try:
            self._submit([partial(job, n, item) for n, item in enumerate(items)])
            while len(answers) < len(items):
                n, answer, error = done.get()
                if error is not None:
                    raise error
                answers[n] = answer  # type: ignore[assignment]
        except BaseException:
            # Its threads may be busy for long with what nobody wants: the next call gets others.
            self.dismiss()
            raise
        finally:
            over.set()
        return [answers[n] for n in range(len(items))]

    def dismiss(self) -> None:
        """Let the threads go once they have done what they were given; a later call starts others."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)
            self._jobs, self._threads = SimpleQueue(), 0

    def _submit(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            while self._threads < min(self._size, len(jobs)):
                threading.Thread(target=_serve, args=(self._jobs,), name="prefrm-client", daemon=True).start()
                self._threads += 1
            for job in jobs:
                self._jobs.put(job)

    def __del__(self) -> None:
        self.dismiss()


def _serve(jobs: "SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        # Or the last call's images would be kept until the next.
        del job
