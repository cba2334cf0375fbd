"""What the server writes about itself and its requests: one record a line, as text or as JSON.

A request's line says what it asked for and how long it took; no image, no prompt and no token is in it. What
a client chose, such as its request id, cannot end a line or begin another. A thread writes, so that logging
never blocks the event loop; records that find its queue full are dropped and counted.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from prefrm.winmatrix import Group
from serving.observing.requests import Request
from serving.observing.writer import LIMIT, LineWriter, write_all

__all__ = [
    "JsonFormatter",
    "LogFormat",
    "QueuedHandler",
    "TextFormatter",
    "configure",
    "dropped_records",
    "log_failure",
    "log_request",
]

LogFormat = Literal["text", "json"]

requests_logger = logging.getLogger("serving.requests")

# Codes of the server's own making; all others are the client's doing, or nobody's.
FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
STANDARD_ERROR = 2
# What the end of the process may wait for the log to be written.
FLUSH_S = 1.0


def configure(format: LogFormat, write: Callable[[bytes], object] | None = None) -> "QueuedHandler":
    """Write this process's log, other libraries' warnings included, with `write` or to standard error.

    `write` is called from one thread; it may block, and raise `OSError`.
    """
    handler = QueuedHandler(write or _standard_error())
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("serving", "prefrm"):
        logging.getLogger(package).setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler


def dropped_records() -> int:
    """How many records this process's log has dropped."""
    return sum(
        handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, QueuedHandler)
    )


class QueuedHandler(logging.Handler):
    """Formats records and leaves them to a thread that writes them; see `LineWriter`.

    Args:
        write: writes bytes.
        limit: bytes that may wait.
    """

    def __init__(self, write: Callable[[bytes], object], limit: int = LIMIT) -> None:
        super().__init__()
        self._writer = LineWriter(write, self._report, limit)

    @property
    def dropped(self) -> int:
        """How many records were dropped so far."""
        return self._writer.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, or drop it."""
        try:
            self._writer.put(self._line(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, for at most a second."""
        self._writer.flush(FLUSH_S)

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="backslashreplace")

    def _report(self, dropped: int) -> bytes:
        text = "%d log records were dropped: they could not be written, or not fast enough"
        return self._line(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (dropped,), None))


def log_request(request: Request) -> None:
    """Write one line about a request that ended."""
    level = logging.ERROR if request.code in FAULTS else logging.INFO
    if requests_logger.isEnabledFor(level):
        requests_logger.log(level, "request", extra={"fields": _fields(request)})


def log_failure(
    logger: logging.Logger, what: str, error: BaseException, groups: Sequence[Group] | None = None
) -> None:
    """Write that something failed and where.

    The error's message is there if it quotes none of the groups; without groups, it might quote anything.
    """
    whole = "".join(traceback.format_exception(error))
    stack = _unquoted(error) if groups is None or _quotes(whole, groups) else whole
    logger.error("%s", what, extra={"stack": stack})


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: time, level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if stack := _stack(record):
            line["exception"] = stack
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """One line of time, level, logger, message and `name=value`; an exception's lines follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields = "".join(f" {name}={_value(value)}" for name, value in _extra(record).items())
        message = _printable(record.getMessage())
        lines = [f"{_time(record)} {record.levelname} {record.name}: {message}{fields}"]
        lines += [f"    {_printable(line)}" for line in _stack(record).splitlines()]
        return "\n".join(lines)


def _standard_error() -> Callable[[bytes], object]:
    """Past `sys.stderr`, whose lock a blocked thread would hold while the process ends."""
    return (lambda content: None) if sys.stderr is None else partial(write_all, STANDARD_ERROR)


def _fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": request.id,
        "wire": request.wire,
        "model": request.model,
        "version": request.version,
        "code": request.code,
        "groups": request.groups,
        "candidates": request.candidates,
        "cost": request.cost,
        "bytes": request.content_bytes,
        "queue_s": round(request.queue_s, 6),
        "compute_s": round(request.compute_s, 6),
        "total_s": round(request.seconds, 6),
    }
    if request.trace_id:
        fields["trace_id"] = request.trace_id
    return fields


def _unquoted(error: BaseException) -> str:
    """The traceback without the message, which may quote a request; the system's own messages do not."""
    if isinstance(error, OSError | MemoryError):
        return "".join(traceback.format_exception(error))
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    return "".join([*frames, f"{type(error).__name__}: (its message may quote a request)\n"])


def _quotes(text: str, groups: Sequence[Group]) -> bool:
    # As it is, as Python shows it and as JSON does. Of an image or a video, a few bytes are enough to tell.
    content = [
        one
        for group in groups
        for one in (group.prompt, group.criterion, *group.candidates, *group.context)
        if one
    ]
    images = [repr(one[:16])[2:-1] for one in content if isinstance(one, bytes)]
    texts = [one for one in content if isinstance(one, str)]
    shown = [form for p in texts for form in (p, repr(p)[1:-1], ascii(p)[1:-1], json.dumps(p)[1:-1])]
    return any(form in text for form in (*shown, *images))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _stack(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[1] is not None:
        return _unquoted(record.exc_info[1])
    return str(getattr(record, "stack", ""))


def _value(value: object) -> str:
    text = _printable(str(value))
    if text and not set(text) & set(' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(text: str) -> str:
    """The text without line ends, terminal escapes and the like: those are written as Python escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
