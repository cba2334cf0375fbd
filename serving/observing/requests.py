"""One request as metrics, logs and traces see it: its size, its cost, how long it took, how it ended."""

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.errors import ServingError

__all__ = ["Observer", "Request", "Watch"]

REQUEST_ID = "x-request-id"
# What a client calls a request is written to logs, so it has a bound.
LONGEST_ID = 128
# https://www.w3.org/TR/trace-context, section 3.2
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


@dataclass(slots=True, kw_only=True)
class Request:
    """Filled while the request is worked on; no image, no prompt and no token is in it.

    Attributes:
        wire: "grpc" or "http".
        id: the client's; when the request has ended, one of the server's own if it sent none.
        model: the name of the model that it was for, "" until it is known that there is such a one.
        version: of that model.
        code: of `grpc.StatusCode`, by name, once it ended.
        groups: how many it had.
        candidates: of all groups together.
        content_bytes: of all prompts and images together.
        cost: tokens, as estimated.
        started: by `time.monotonic()`.
        input_s: seconds that reading its tensors took; 0 for a request without tensors.
        queue_s: seconds until the turn of its last group.
        compute_s: seconds of the batches that it was in.
        output_s: seconds that writing the tensors of its answer took, likewise.
        seconds: from its arrival to its end.
        traceparent: what the client sent in W3C's header of that name, or "", unchecked.
        tracestate: likewise.
    """

    wire: str
    id: str = ""
    model: str = ""
    version: str = ""
    code: str = "OK"
    groups: int = 0
    candidates: int = 0
    content_bytes: int = 0
    cost: int = 0
    started: float = field(default_factory=time.monotonic)
    input_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    output_s: float = 0.0
    seconds: float = 0.0
    traceparent: str = ""
    tracestate: str = ""

    @classmethod
    def from_headers(cls, wire: str, headers: Iterable[tuple[str, str]]) -> "Request":
        """A request with these HTTP headers or gRPC metadata, their names in lower case."""
        sent = dict(headers)
        return cls(
            wire=wire,
            id=sent.get(REQUEST_ID, ""),
            traceparent=sent.get("traceparent", ""),
            tracestate=sent.get("tracestate", ""),
        )

    @property
    def trace_id(self) -> str:
        """Of the trace that the client's request belongs to, in hex; "" if of none."""
        matched = _TRACEPARENT.fullmatch(self.traceparent)
        return matched[1] if matched else ""


Observer = Callable[[Request], None]
"""Told of each request once it ended."""


class Watch:
    """Tells observers of requests.

    Attributes:
        open: requests that have not ended.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.open = 0
        self._observers = observers

    @contextmanager
    def request(self, wire: str, headers: Iterable[tuple[str, str]] = ()) -> Iterator[Request]:
        """The block in which a request is answered; what leaves the block is its code."""
        request = Request.from_headers(wire, headers)
        self.open += 1
        try:
            yield request
        except BaseException as error:
            request.code = _code(error)
            raise
        finally:
            self.open -= 1
            self._end(request)

    def refused(self, wire: str, code: str) -> None:
        """Tell of a request that was turned away before anything was read of it."""
        self._end(Request(wire=wire, code=code))

    def _end(self, request: Request) -> None:
        request.seconds = time.monotonic() - request.started
        request.id = request.id[:LONGEST_ID] or uuid.uuid4().hex
        for observer in self._observers:
            observer(request)


def _code(error: BaseException) -> str:
    if isinstance(error, ServingError):
        return error.grpc_status
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"
