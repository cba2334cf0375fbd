"""Time limits on loading a model, which no thread can be made to stop.

At its start a server ends with its process. Later, it leaves a loading that takes too long to itself.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["or_exit"]

# As of every mistake that the command line reports.
REFUSED = 2


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
