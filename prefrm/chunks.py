"""Work in runs of a bounded size."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from prefrm.errors import ConfigError

__all__ = ["chunks", "runs_within"]

T = TypeVar("T")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in runs of `size`, the last one shorter; the items are drawn as they are needed.

    Raises:
        ConfigError: `size` is less than 1.
    """
    if size < 1:
        raise ConfigError(f"a batch must hold at least 1 item; received {size}")
    rest = iter(items)
    while run := list(islice(rest, size)):
        yield run


def runs_within(items: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """Items of those sizes in consecutive runs of at most `most` in all, or of one item.

    Draws no more than one item beyond a run.
    """
    run: list[T] = []
    total = 0
    for item, size in items:
        if run and total + size > most:
            yield run
            run, total = [], 0
        run.append(item)
        total += size
    if run:
        yield run
