"""Long work on a body, in short steps beside the event loop.

Work is a generator that yields often and returns its result. One thread advances the work of all requests in
turns: work that holds the interpreter's lock delays the event loop by one step of one request at most, and a
large body delays a small one by no more than a step for each large one.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Steps", "beside_loop", "finish", "in_steps"]

T = TypeVar("T")
Steps = Generator[None, None, T]

STEP_S = 0.002

_THREAD = ThreadPoolExecutor(1, "bodies")


async def in_steps(work: Steps[T]) -> T:
    """The result of `work`, which is abandoned after its current step if this is cancelled."""
    loop = asyncio.get_running_loop()
    while (result := await loop.run_in_executor(_THREAD, _advance, work)) is None:
        pass
    return result[0]


async def beside_loop(call: Callable[..., T], *arguments: Any) -> T:
    """What a call returns that cannot be divided, as one step."""

    def work() -> Steps[T]:
        yield
        return call(*arguments)

    return await in_steps(work())


def finish(work: Steps[T]) -> T:
    """The result of `work`, here and now: for what is known to be small."""
    while (result := _advance(work)) is None:
        pass
    return result[0]


def _advance(work: Steps[T]) -> tuple[T] | None:
    # A StopIteration cannot cross a future.
    end = time.monotonic() + STEP_S
    try:
        while time.monotonic() < end:
            next(work)
    except StopIteration as stop:
        return (stop.value,)
    return None
