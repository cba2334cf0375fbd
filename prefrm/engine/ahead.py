"""Results of a function, computed by threads ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R]:
    """The results in order, as `map` gives them.

    Args:
        function: called in any thread.
        items: drawn in the thread that takes the results.
        threads: at most twice as many results are computed and not yet taken; with 0 a result is computed
            when it is taken, in the same thread.
    """
    if not threads:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefrm-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # A caller that stops early does not wait for what has not begun.
        pool.shutdown(cancel_futures=True)
