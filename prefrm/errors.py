"""Every error that prefrm raises on purpose, in one hierarchy.

Knows no HTTP, no gRPC and no torch; the server and the client map these to status codes.

    PrefrmError
    ├── ConfigError (ValueError)               a setting is unknown, missing, ill-typed or out of range
    ├── MissingExtraError (ImportError)        an optional dependency is not installed
    ├── DataError (ValueError)                 data that came from outside is not what it should be
    │   ├── RecordError                        a group or a comparison breaks its own rules
    │   ├── DatasetError                       a dataset on disk is absent, truncated or of another format
    │   └── MediaError                         an image or video is unreadable, too large or refused
    ├── BundleError (ValueError)               a bundle is absent, incomplete, altered or of another version
    ├── IncompleteMatrixError (ValueError)     a reward was asked of pairs that were never judged
    └── ScoringError (RuntimeError)            a scorer could not answer
        ├── ProtocolError                      the other side sent tensors that are no group or no matrix
        ├── RequestError                       the server refused the request; repeating it cannot help
        ├── ServerUnavailableError (ConnectionError)   nobody answers, or the server is not ready
        ├── OverloadedError                    the server is full; try again later
        ├── OutOfMemoryError (MemoryError)     the device is too small for what was to be scored together
        └── DeadlineError (TimeoutError)       the answer did not come in time

Each takes one message and nothing else, so each survives pickling between worker processes.
A message says what was wrong, what was received and what to do.
"""

__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "DatasetError",
    "DeadlineError",
    "IncompleteMatrixError",
    "MediaError",
    "MissingExtraError",
    "OutOfMemoryError",
    "OverloadedError",
    "PrefrmError",
    "ProtocolError",
    "RecordError",
    "RequestError",
    "ScoringError",
    "ServerUnavailableError",
    "missing_extra",
]


class PrefrmError(Exception):
    """Base of all; the command line prints it as one line and exits with status 2."""


class ConfigError(PrefrmError, ValueError):
    """A setting is unknown, missing, ill-typed or out of range."""


class MissingExtraError(PrefrmError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class DataError(PrefrmError, ValueError):
    """Data that came from outside is not what it should be."""


class RecordError(DataError):
    """A group or a comparison breaks its own rules."""


class DatasetError(DataError):
    """A dataset on disk is absent, truncated or of another format."""


class MediaError(DataError):
    """An image or a video is unreadable, too large or of a refused format."""


class BundleError(PrefrmError, ValueError):
    """A bundle is absent, incomplete, altered or of another version."""


class IncompleteMatrixError(PrefrmError, ValueError):
    """A reward was asked of pairs that were never judged."""


class ScoringError(PrefrmError, RuntimeError):
    """A scorer could not answer."""


class ProtocolError(ScoringError):
    """The other side sent tensors that are no group or no win matrix."""


class RequestError(ScoringError):
    """The server refused the request; repeating it unchanged cannot help."""


class ServerUnavailableError(ScoringError, ConnectionError):
    """Nobody answers at the address, or the server is not ready."""


class OverloadedError(ScoringError):
    """The server is full; the same request may succeed later."""


class OutOfMemoryError(ScoringError, MemoryError):
    """The device has too little memory for what was to be scored together; less of it may fit."""


class DeadlineError(ScoringError, TimeoutError):
    """The answer did not come in time: the call took longer than its timeout, or a server gave up."""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The error for an absent optional dependency: names the package and the command that helps."""
    return MissingExtraError(f"{package} is not installed. Install it with `pip install 'prefrm[{extra}]'`.")
