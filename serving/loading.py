"""Time limits on loading a model, which no thread can be made to stop.

At its start a server ends with its process. Later, it leaves a loading that takes too long to itself.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["in_daemon_thread", "or_exit"]

T = TypeVar("T")
# As of every mistake that the command line reports.
REFUSED = 2


def in_daemon_thread(function: Callable[[], T]) -> Future[T]:
    """Call `function` in a thread of its own, which delays no exit, unlike an executor's."""
    future: Future[T] = Future()
    # From now on a loop that stops cannot cancel it, but leaves it.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return future


@contextmanager
def or_exit(seconds: float, message: str) -> Iterator[None]:
    """End the process with one line and status 2 if the block takes longer than `seconds`."""

    def give_up() -> None:
        print(f"prefrm: {message}", file=sys.stderr, flush=True)
        os._exit(REFUSED)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
