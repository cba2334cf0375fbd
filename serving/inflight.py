"""The budget of bytes that a server holds for its requests, shared by its wires and its models.

A request leases what its body takes while it is received, inflated, parsed, queued and scored, and what its
answer takes until it is sent. It may hold at most as many bytes as remain free, so that large requests never
take the room of small ones: of n equal requests each gets 1/(n + 1) of the budget (dynamic thresholds,
Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998).
"""

import threading
from types import TracebackType

from serving.errors import TooLargeError
from serving.limits import Limits

__all__ = ["InFlightBytes", "Lease"]


class InFlightBytes:
    """Bytes in flight of one server. Safe to use from several threads.

    Args:
        limits: `in_flight_bytes` is the budget, `overload_status` what exceeding it answers.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes that are leased now."""
        return self._used

    def lease(self) -> "Lease":
        """A lease of no bytes yet. Use it as a context manager, which returns what it holds."""
        return Lease(self)

    def check(self, size: int) -> None:
        """Check whether a new lease could hold `size` bytes.

        Raises:
            OverloadedError: not now.
            TooLargeError: never.
        """
        if size > (most := self._limits.in_flight_bytes // 2):
            raise TooLargeError(f"the request and its answer take {size} bytes; the limit is {most}")
        if size > self._limits.in_flight_bytes - self._used - size:
            raise self._limits.overloaded(
                f"no room for a request of {size} bytes beside those in flight; try again later"
            )

    def exchange(self, lease: "Lease", size: int) -> None:
        """Let a lease hold `size` bytes instead of its own. Growth raises as `check`."""
        with self._lock:
            if lease.is_ended:
                return
            self._used -= lease.size
            try:
                if size > lease.size:
                    self.check(size)
                lease.size = size
            finally:
                self._used += lease.size

    def end(self, lease: "Lease") -> None:
        """Take back what a lease holds. It holds nothing from then on."""
        with self._lock:
            self._used -= lease.size
            lease.size, lease.is_ended = 0, True


class Lease:
    """What one request holds of the budget.

    Attributes:
        size: bytes.
        is_ended: whether it holds nothing any more, nor ever will: work in a thread may outlive its request.
    """

    def __init__(self, budget: InFlightBytes) -> None:
        self._budget = budget
        self.size = 0
        self.is_ended = False

    def check(self, size: int) -> None:
        """As `InFlightBytes.check`."""
        self._budget.check(size)

    def add(self, size: int) -> None:
        """Hold `size` more bytes. Raises as `InFlightBytes.check`, and then holds no more than before."""
        self._budget.exchange(self, self.size + size)

    def keep(self, size: int) -> None:
        """Return all bytes but `size`, if it holds more."""
        self._budget.exchange(self, min(size, self.size))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.end(self)
