"""What a failed HTTP answer means: which error, in whose words, and how long to stay away."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from prefrm.client._transport import Failure

__all__ = ["CONNECT_S", "LONGEST_TEXT", "close_dropped", "http_failure"]

# A machine that is not there never answers; one that is there connects much sooner than this.
CONNECT_S = 5.0
# Of a model's configuration, and of the reason for a refusal.
LONGEST_TEXT = 2**20
# A loop on another thread closes its connections within milliseconds, unless it hangs.
RELEASE_S = 1.0
# As codes of gRPC. Any other 3xx or 4xx is a refusal, and any other status a failure of the server. 425 says
# nothing of the request: it came too early to be trusted.
CODES = {
    408: "DEADLINE_EXCEEDED",
    413: "OUT_OF_RANGE",
    425: "UNAVAILABLE",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
WITH_PAUSE = (429, 502, 503)
"""Statuses whose Retry-After counts."""


def http_failure(status: int, headers: Mapping[str, str], content: bytes) -> Failure:
    """What an answer of another status than 200 raises."""
    reason = _reason(content)
    if 300 <= status < 400:
        reason = f"it redirects to {headers.get('Location')}; write the URL of the server itself"
    code = CODES.get(status, "INVALID_ARGUMENT" if 300 <= status < 500 else f"HTTP {status}")
    return Failure(code, reason, _pause(headers) if status in WITH_PAUSE else None)


def _reason(content: bytes) -> str:
    """A server's own words: `error` of the Open Inference Protocol and OpenAI's API, FastAPI's `detail`."""
    try:
        said: Any = json.loads(content)
        said = said.get("error", said.get("detail", said))
        return str(said["message"] if isinstance(said, dict) and "message" in said else said)
    except (ValueError, RecursionError, AttributeError):
        return content.decode("utf-8", "replace")


def _pause(headers: Mapping[str, str]) -> float | None:
    """Seconds until the time that Retry-After names, RFC 9110 10.2.3; None if it names none."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def close_dropped(
    closed: Callable[[], bool],
    close: Callable[[], Coroutine[Any, Any, None]],
    loop: asyncio.AbstractEventLoop,
    pid: int,
) -> None:
    """Close a session whose owner dropped it, or still has it when the program ends.

    Its library would warn about it then, when it can no longer be closed.
    """
    if closed() or os.getpid() != pid:
        return
    # Outside any loop, such as at the end of the program: a loop on another thread is stopped next.
    ending = asyncio._get_running_loop() is None
    if loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(close(), loop)
        with suppress(TimeoutError):
            closing.result(timeout=RELEASE_S) if ending else None
    elif ending:
        (asyncio.run if loop.is_closed() else loop.run_until_complete)(close())
