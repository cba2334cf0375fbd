"""One request as metrics, logs and traces see it: its size, its cost, how long it took, how it ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.errors import ServingError

__all__ = ["Observer", "Request", "Watch"]


@dataclass(slots=True, kw_only=True)
class Request:
    """Filled while the request is worked on; no image, no prompt and no token is in it.

    Attributes:
        wire: "grpc" or "http".
        id: the client's, or "".
        model: the name of the model that it was for, "" until it is known that there is such a one.
        version: of that model.
        code: of `grpc.StatusCode`, by name, once it ended.
        groups: how many it had.
        candidates: of all groups together.
        content_bytes: of all images together.
        cost: tokens, as estimated.
        started: by `time.monotonic()`.
        queue_s: seconds until the turn of its last group.
        compute_s: seconds of the batches that it was in.
        seconds: from its arrival to its end.
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
    queue_s: float = 0.0
    compute_s: float = 0.0
    seconds: float = 0.0


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
    def request(self, wire: str, id: str = "") -> Iterator[Request]:
        """The block in which a request is answered; what leaves the block is its code."""
        request = Request(wire=wire, id=id)
        self.open += 1
        try:
            yield request
        except BaseException as error:
            request.code = _code(error)
            raise
        finally:
            self.open -= 1
            request.seconds = time.monotonic() - request.started
            for observer in self._observers:
                observer(request)


def _code(error: BaseException) -> str:
    if isinstance(error, ServingError):
        return error.grpc_status
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"
