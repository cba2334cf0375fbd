"""What the core asks of a wire, how a wire says that an attempt failed, and the check that both share.

Shapes: B groups of one request, all of one size; K candidates of a group.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prefrm.errors import (
    DeadlineError,
    OverloadedError,
    ProtocolError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.protocol import IMAGES, TEXTS, Tensors, answer_bytes
from prefrm.tensors import RawTensor, read_outputs
from prefrm.winmatrix import Inputs

__all__ = ["Failure", "Question", "TooLarge", "Transport", "Unfit", "Wire"]


class Unfit(RequestError):
    """A request that cannot be sent or is not accepted as it is; a part of its groups may be."""


class TooLarge(Unfit):
    """A request that is larger than the wire or the server accepts."""


_REFUSALS = (
    *("ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"),
    *("UNAUTHENTICATED", "UNIMPLEMENTED"),
)
# The error that each of gRPC's status codes becomes. Any other is a failure of the server.
_ERRORS: dict[str, tuple[type[ScoringError], str]] = {
    "UNAVAILABLE": (ServerUnavailableError, "is not available"),
    "CANCELLED": (ServerUnavailableError, "is not available"),
    "RESOURCE_EXHAUSTED": (OverloadedError, "is overloaded"),
    "DEADLINE_EXCEEDED": (DeadlineError, "timed out"),
    "OUT_OF_RANGE": (TooLarge, "refused the request"),
    **dict.fromkeys(_REFUSALS, (RequestError, "refused the request")),
}


class Failure(Exception):
    """An attempt that failed. The core says of which server, and quotes the reason, which is not trusted.

    Args:
        code: the name of a gRPC status code.
        reason: the words of the server or of a library.
        pause: seconds that the server asked to be left alone, negative for ever; None if it did not ask.
    """

    def __init__(self, code: str, reason: object, pause: float | None = None) -> None:
        super().__init__(str(reason) or "no reason given")
        # A server that says when to come back is full.
        code = "RESOURCE_EXHAUSTED" if code == "UNAVAILABLE" and pause is not None else code
        self.code, self.pause = code, pause
        self.kind, self.said = _ERRORS.get(code, (ScoringError, f"failed to score ({code})"))


class Wire(Protocol):
    """A connection to one server, in one event loop. Retries nothing; the caller bounds each call in time.

    Each call raises `Failure`, `TimeoutError`, or `ProtocolError` if the answer is not what it must be.
    """

    async def bundle(self) -> str:
        """The digest of the served bundle, or another name of the judge; empty if the server names none."""

    async def live(self) -> None:
        """Returns if the server says that it is live."""

    async def close(self) -> None:
        """Release the connections; calls under way fail."""


class Transport(Wire, Protocol):
    """A connection to a server of the Open Inference Protocol."""

    async def inputs(self) -> Inputs:
        """What the served judge reads, by its configuration."""

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """The outputs for one request, which the server may drop after `timeout` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request but for its tensors: model, id, B and K, and the microseconds that the server may take."""

    model: str
    id: str
    shape: tuple[int, int]
    timeout: int

    @classmethod
    def of(cls, model: str, tensors: Tensors, seconds: float) -> "Question":
        """The question of a request with these tensors."""
        count, size = tensors[IMAGES.name if IMAGES.name in tensors else TEXTS.name].shape
        timeout = max(1, int(seconds * 1e6))
        return cls(model=model, id=secrets.token_hex(8), shape=(count, size), timeout=timeout)

    @property
    def answer_bytes(self) -> int:
        """The bytes of the largest answer."""
        return answer_bytes(*self.shape)

    def read(self, model: object, request_id: object, outputs: Sequence[RawTensor]) -> Tensors:
        """The outputs of an answer. Raises `ProtocolError` if it is not one to this question."""
        if (model, request_id) != (self.model, self.id):
            raise ProtocolError(
                f"it names the model {model!r} and the request {request_id!r} "
                f"instead of {self.model!r} and {self.id!r}"
            )
        count, size = self.shape
        return read_outputs(outputs, count=count, size=size)
