"""One thread with an event loop for each process: it runs the coroutines of the blocking scorers.

The thread is a daemon, so it does not delay the program's end. A forked child does not have it and makes its
own at the first use.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["run"]

Answer = TypeVar("Answer")


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that counts as closed in a forked child.

    The child shares the selector with its parent. If it closed the sockets that it inherited, it would take
    them out of the parent's selector.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def is_closed(self) -> bool:
        return super().is_closed() or os.getpid() != self._pid


_loop: _Loop | None = None
_lock = threading.Lock()


def run(function: Callable[[], Awaitable[Answer]]) -> Answer:
    """`await function()` on the portal's event loop, for a caller on any other thread.

    An interruption of the caller cancels the call and is raised at once.
    """
    loop, tasks = _running_loop(), list[asyncio.Task[None]]()
    done = SimpleQueue[tuple[Answer] | BaseException]()

    async def work() -> None:
        try:
            done.put((await function(),))
        except BaseException as error:
            done.put(error)

    # An interruption may come at any place, also inside the hand-over, which the cancellation then follows.
    try:
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(work())))
        outcome = done.get()
    except BaseException:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
        raise
    if not isinstance(outcome, BaseException):
        return outcome[0]
    try:
        raise outcome
    finally:
        # The traceback refers to this frame, and would keep the call's images until the next collection.
        del outcome


def _running_loop() -> _Loop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = _Loop()
            threading.Thread(target=_loop.run_forever, name="prefrm-client", daemon=True).start()
        return _loop


def _forget_in_child() -> None:
    global _loop, _lock
    if _loop is not None:
        # What the child inherited ends with it, unclosed and without a warning.
        _loop.set_exception_handler(lambda *_: None)
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
