"""Calls on threads in the order of their submission, which the processes of a training run have in common.

Processes match their n-th exchanges with each other, so each of them must make its calls in the same order. A
thread pool starts calls in the order of submission, but one that is delayed on its way, by another reward or
by the scheduler, is overtaken. A call that knows what was submitted before it can wait for that.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from prefrm.errors import ConfigError

__all__ = ["CallOrder", "OrderedExecutor"]

T = TypeVar("T")

# Of a running call: the calls submitted before it, None where that is not known; and whether a pool runs it.
_earlier: ContextVar[Sequence[Future[Any]] | None] = ContextVar("earlier", default=None)
_in_pool: ContextVar[bool] = ContextVar("in_pool", default=False)


class OrderedExecutor(ThreadPoolExecutor):
    """A thread pool whose calls know which calls were submitted before them.

    It takes the place of a trainer's `ThreadPoolExecutor`, with the same arguments. In it, `FlowGRPOReward`
    waits until all earlier calls have ended; everything else runs side by side, as in any thread pool. A call
    that another call submits has no order, since the other may wait for it: it waits for none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._submitting = threading.Lock()
        self._unfinished: list[Future[Any]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As `ThreadPoolExecutor.submit`."""
        # One step, so that the order that a call knows is the order of the queue. Threads take calls from it
        # first in, first out: whatever a call waits for has begun before it.
        with self._submitting:
            self._unfinished = [future for future in self._unfinished if not future.done()]
            earlier = None if _in_pool.get() else tuple(self._unfinished)
            future = super().submit(_knowing, earlier, fn, *args, **kwargs)
            self._unfinished.append(future)
        return future


def _knowing(earlier: Sequence[Future[Any]] | None, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    tokens = _earlier.set(earlier), _in_pool.set(True)
    try:
        return fn(*args, **kwargs)
    finally:
        _earlier.reset(tokens[0])
        _in_pool.reset(tokens[1])


class CallOrder:
    """The calls of one object in this process: one at a time, in the order of submission where it is known.

    It is known among the calls of one thread, and in an `OrderedExecutor` among those that no other submits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until it is this call's turn; the block is its turn."""
        wait(_earlier.get() or ())
        with self._lock:
            yield

    def check(self) -> None:
        """In a turn: raise `ConfigError` if the order is not known."""
        current = threading.current_thread()
        known = _earlier.get() is not None or self._thread in (None, current)
        # A pool that was made after another has ended is not a second source of calls.
        if not known and self._thread is not None and self._thread.is_alive():
            raise ConfigError(
                f"calls come on the threads {self._thread.name} and {current.name}, which do not keep the "
                "order that all processes must have; in the trainer, replace ThreadPoolExecutor by "
                "prefrm.grpo.OrderedExecutor and submit to it from one thread, or set max_workers=1"
            )
        self._thread = current
