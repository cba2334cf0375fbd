"""A queue in which requests take turns by what they cost, so that a large one does not starve the others.

Self-clocked fair queueing (Golestani, INFOCOM 1994): an item is due at the time, counted in cost, at which
its flow would be served had each flow the same share. A flow is one request, an item one of its groups.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

F = TypeVar("F")


@dataclass(slots=True, order=True)
class _Entry(Generic[F]):
    due: float
    arrival: int
    flow: F = field(compare=False)


class FairQueue(Generic[F]):
    """Flows, each with a next item.

    Args:
        cost: of a flow's next item, > 0; None if the flow has no more, or nobody wants them.
    """

    def __init__(self, cost: Callable[[F], float | None]) -> None:
        self._cost = cost
        self._entries: list[_Entry[F]] = []
        self._now = 0.0
        self._arrivals = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, flow: F) -> None:
        """A new flow, whose first item is due after its cost."""
        cost = self._cost(flow)
        if cost is not None:
            self._arrivals += 1
            heapq.heappush(self._entries, _Entry(self._now + cost, self._arrivals, flow))

    def first(self) -> F | None:
        """The flow whose item is due first; flows that have none any more are dropped."""
        while self._entries:
            flow = self._entries[0].flow
            if self._cost(flow) is not None:
                return flow
            heapq.heappop(self._entries)
            self._dead = max(0, self._dead - 1)
        return None

    def forget(self) -> None:
        """Call once a flow is wanted no more; when half of them are not, they are all dropped."""
        self._dead += 1
        if 2 * self._dead > len(self._entries):
            self._entries = [entry for entry in self._entries if self._cost(entry.flow) is not None]
            heapq.heapify(self._entries)
            self._dead = 0

    def advance(self) -> None:
        """Call once the first flow's item was taken: the flow goes to where its next one is due."""
        entry = self._entries[0]
        self._now = entry.due
        cost = self._cost(entry.flow)
        if cost is None:
            heapq.heappop(self._entries)
        else:
            entry.due += cost
            heapq.heapreplace(self._entries, entry)
