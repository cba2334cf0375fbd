"""Why a request was not answered, and what each wire says then. The only table of status codes.

ServingError (PrefrmError)
├── InvalidRequestError (RequestError)       the request is malformed or breaks a limit
├── UnknownModelError (RequestError)         no such model or version
├── TooLargeError (RequestError)             the body or its answer is too large; a part may pass
├── SlowBodyError (DeadlineError)            the body did not come within the deadline
├── OverloadedError (OverloadedError)        the queue is full
│   └── BusyError                            the same, for clients that come back after 503 alone
├── ClientGoneError                          the client left before its answer was ready
├── FailedError (ScoringError)               the scorer failed
├── UnsupportedError (RequestError)          a part of the protocol that this server does not have
├── NotReadyError (ServerUnavailableError)   the server is starting or stopping
└── ExpiredError (DeadlineError)             the request's deadline passed before its answer was there

In brackets: the error of `prefrm.errors` that it also is, which a remote scorer raises for it.
"""

from typing import ClassVar

from prefrm import errors

__all__ = [
    "BusyError",
    "ClientGoneError",
    "ExpiredError",
    "FailedError",
    "InvalidRequestError",
    "NotReadyError",
    "OverloadedError",
    "ServingError",
    "SlowBodyError",
    "TooLargeError",
    "UnknownModelError",
    "UnsupportedError",
]

# A message may quote what the client sent, and gRPC carries it in a header, which may not exceed 8 KiB; a
# character takes up to 12 bytes there.
LONGEST_MESSAGE = 600


class ServingError(errors.PrefrmError):
    """Base of all. `http_status` is what HTTP answers, `grpc_status` the name of gRPC's code."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        # JSON may hold half of a surrogate pair, which no wire can send.
        super().__init__(message.encode("utf-8", "backslashreplace").decode()[:LONGEST_MESSAGE])


class InvalidRequestError(ServingError, errors.RequestError):
    """The request is malformed or breaks a limit."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class UnknownModelError(ServingError, errors.RequestError):
    """No such model or version is served."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class TooLargeError(ServingError, errors.RequestError):
    """The body exceeds the limit on its bytes, or its answer would be too large; a part may pass."""

    http_status = 413
    grpc_status = "OUT_OF_RANGE"


class SlowBodyError(ServingError, errors.DeadlineError):
    """The body did not come within the deadline."""

    http_status = 408
    grpc_status = "DEADLINE_EXCEEDED"


class OverloadedError(ServingError, errors.OverloadedError):
    """The queue is full. Not 503 by default: proxies take a replica out of service for that.

    Attributes:
        retry_after: seconds after which there may be room.
    """

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BusyError(OverloadedError):
    """The queue is full, said as clients hear it that come back only after 503."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class ClientGoneError(ServingError):
    """The client left before its answer was ready."""

    http_status = 499
    grpc_status = "CANCELLED"


class FailedError(ServingError, errors.ScoringError):
    """The scorer failed, or answered with something that is no answer."""

    http_status = 500
    grpc_status = "INTERNAL"


class UnsupportedError(ServingError, errors.RequestError):
    """A part of the protocol that this server does not have."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class NotReadyError(ServingError, errors.ServerUnavailableError):
    """The server is starting or stopping."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class ExpiredError(ServingError, errors.DeadlineError):
    """The request's deadline passed before its answer was there."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
