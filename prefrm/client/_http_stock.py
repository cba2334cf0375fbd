"""The stock HTTP clients, made to give up connecting in time and to remember the pause a server asks for.

They drop an answer's headers, so Retry-After is noted here, for the thread or task that asked.
"""

import asyncio
import ssl
import time
import weakref
from contextlib import suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

__all__ = ["CONNECT_S", "AsyncStockClient", "StockClient", "forget_pause", "pause"]

# A machine that is not there never answers; one that is there connects much sooner than this.
CONNECT_S = 5.0
# A loop on another thread closes its connections within milliseconds, unless it hangs.
RELEASE_S = 1.0

_retry_after: ContextVar[str | None] = ContextVar("_retry_after", default=None)


class StockClient(triton.InferenceServerClient):  # type: ignore[misc]
    """The stock client, which remembers what it drops."""

    def _post(self, *arguments: Any, **named: Any) -> Any:
        response = super()._post(*arguments, **named)
        _retry_after.set(response.get("retry-after"))
        return response

    def _get(self, *arguments: Any, **named: Any) -> Any:
        response = super()._get(*arguments, **named)
        _retry_after.set(response.get("retry-after"))
        return response


class AsyncStockClient(triton_aio.InferenceServerClient):  # type: ignore[misc]
    """The stock asyncio client, which remembers what it drops and gives up connecting in time."""

    _stub: Any

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        super().__init__(address, conn_timeout=None, ssl=context is not None, ssl_context=context)
        self._stub.detach()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._stub = aiohttp.ClientSession(connector=self._conn, timeout=timeout, auto_decompress=False)
        weakref.finalize(self, _release, self._stub, asyncio.get_running_loop())

    async def _post(self, *arguments: Any, **named: Any) -> Any:
        response = await super()._post(*arguments, **named)
        _retry_after.set(response.headers.get("retry-after"))
        return response

    async def _get(self, *arguments: Any, **named: Any) -> Any:
        response = await super()._get(*arguments, **named)
        _retry_after.set(response.headers.get("retry-after"))
        return response


def _release(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close a session whose owner dropped it, or still has it when the program ends.

    aiohttp would warn about it then, when it can no longer be closed.
    """
    if session.closed:
        return
    if loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
        if not _in_a_loop():
            # The end of the program: a loop on another thread is stopped next.
            with suppress(TimeoutError):
                closing.result(timeout=RELEASE_S)
    elif not _in_a_loop():
        (asyncio.run if loop.is_closed() else loop.run_until_complete)(session.close())


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def forget_pause() -> None:
    """What was said before says nothing of the request to come."""
    _retry_after.set(None)


def pause() -> float | None:
    """Seconds until the time that Retry-After names, RFC 9110 10.2.3; None if it names none."""
    value = (_retry_after.get() or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
