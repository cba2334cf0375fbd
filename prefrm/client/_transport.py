"""What the core asks of a wire, and how a wire says that an attempt failed."""

from typing import Protocol

from prefrm.errors import OverloadedError, RequestError, ScoringError, ServerUnavailableError
from prefrm.protocol import Tensors

__all__ = ["Failure", "TooLarge", "Transport", "Unfit"]


class Failure(Exception):
    """An attempt that failed. The core names the server and quotes the reason, which is not trusted.

    Args:
        kind: the error that it becomes, unless it is retried.
        reason: the server's or a library's words.
        pause: seconds that the server asked to be left alone, negative for ever; None if it did not ask.
        unsupported: the server does not have that part of the protocol.
    """

    def __init__(
        self,
        kind: type[ScoringError],
        reason: object,
        pause: float | None = None,
        *,
        unsupported: bool = False,
    ) -> None:
        super().__init__(str(reason))
        # A server that says when to come back is full.
        full = kind is ServerUnavailableError and pause is not None
        self.kind = OverloadedError if full else kind
        self.pause, self.unsupported = pause, unsupported


class Unfit(RequestError):
    """A request that cannot be sent or is not accepted as it is; a part of its groups may be."""


class TooLarge(Unfit):
    """A request that is larger than the wire or the server accepts."""


class Transport(Protocol):
    """A connection to one server, in one event loop. Retries nothing; the caller bounds each call in time.

    Each call raises `Failure`, `ProtocolError` about an answer, or `TimeoutError`.
    """

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """The checked outputs for one request, which the server may drop after `timeout` seconds."""
        ...

    async def bundle(self) -> str:
        """The digest of the served bundle, empty if the server names none."""
        ...

    async def live(self) -> None:
        """Returns if the server says that it is live."""
        ...

    async def close(self) -> None:
        """Release the connections; calls under way fail."""
        ...
