"""The HTTP wire of the remote scorers, on `tritonclient.http` and `tritonclient.http.aio`. Retries nothing.

The stock blocking client stands on gevent: it belongs to the thread that made it, its timeouts are those
of single socket operations, and a connection that was interrupted must not be used again. So each thread
has a client of its own, a gevent timer bounds the whole attempt, and a failure discards the client.
"""

import asyncio
import gzip
import os
import ssl
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import gevent
import gevent.ssl
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import (
    Setback,
    TooLarge,
    bundle_of,
    inputs_of,
    late,
    microseconds,
    one_line,
    outputs_of,
    overloaded,
    unavailable,
)
from prefrm.errors import DeadlineError, ProtocolError, RequestError, ScoringError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors

__all__ = ["AsyncHttpTransport", "HttpTransport"]

# A machine that is not there never answers; one that is there connects much sooner than this.
CONNECT_S = 5.0
# What a server answers that has no such part of the protocol.
UNSUPPORTED = "501"

# The process whose gevent hub is known to work; a forked child must renew the one it inherited.
_gevent_pid = os.getpid()
# The last answer's Retry-After, in this thread or task: the stock clients drop an answer's headers.
_retry_after: ContextVar[str | None] = ContextVar("_retry_after", default=None)


class _Client(triton.InferenceServerClient):  # type: ignore[misc]
    """The stock client, which remembers what it drops."""

    def _post(self, *arguments: Any, **named: Any) -> Any:
        response = super()._post(*arguments, **named)
        _retry_after.set(response.get("retry-after"))
        return response

    def _get(self, *arguments: Any, **named: Any) -> Any:
        response = super()._get(*arguments, **named)
        _retry_after.set(response.get("retry-after"))
        return response


class _AsyncClient(triton_aio.InferenceServerClient):  # type: ignore[misc]
    """The stock asyncio client, which remembers what it drops and gives up connecting in time."""

    _stub: Any

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        super().__init__(address, conn_timeout=None, ssl=context is not None, ssl_context=context)
        self._stub.detach()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._stub = aiohttp.ClientSession(connector=self._conn, timeout=timeout, auto_decompress=False)

    async def _post(self, *arguments: Any, **named: Any) -> Any:
        response = await super()._post(*arguments, **named)
        _retry_after.set(response.headers.get("retry-after"))
        return response

    async def _get(self, *arguments: Any, **named: Any) -> Any:
        response = await super()._get(*arguments, **named)
        _retry_after.set(response.headers.get("retry-after"))
        return response


class HttpTransport:
    """Blocking requests; may be used from several threads."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._context = (
            credentials.tls.context(gevent.ssl.create_default_context) if endpoint.secure else None
        )
        self._local = threading.local()
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()

    def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.Transport` says."""
        request = _request(self._endpoint, self._credentials, tensors, timeout)
        result = self._ask(lambda client: client.infer(**request), timeout)
        return outputs_of(result, self._endpoint)

    def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.Transport` says."""
        model, headers = self._endpoint.model, self._credentials.headers()
        try:
            config = self._ask(lambda client: client.get_model_config(model, headers=headers), timeout)
        except ScoringError as error:
            if _unsupported(error):
                return None
            raise
        return bundle_of(config)

    def _ask(self, call: Callable[[Any], Any], timeout: float) -> Any:
        client = self._client()
        _retry_after.set(None)
        timer = gevent.Timeout.start_new(timeout)
        try:
            return call(client)
        except BaseException as error:
            self._discard(client)
            if error is timer:
                raise late(self._endpoint, timeout) from error
            if isinstance(error, Exception):
                raise _translated(error, self._endpoint) from error
            raise
        finally:
            timer.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        for client in list(self._clients):
            client.close()
        self._clients.clear()
        self._local = threading.local()

    def _client(self) -> Any:
        # Another thread may close this transport meanwhile, which replaces `_local`.
        local = self._local
        if not hasattr(local, "client"):
            _renew_after_fork()
            _silence_interruptions()
            context = self._context
            local.client = _Client(
                self._endpoint.address,
                connection_timeout=CONNECT_S,
                network_timeout=None,
                ssl=self._endpoint.secure,
                ssl_context_factory=lambda cafile=None: context,
            )
            self._clients.add(local.client)
        return local.client

    def _discard(self, client: Any) -> None:
        local = self._local
        if getattr(local, "client", None) is client:
            del local.client
        self._clients.discard(client)
        client.close()


class AsyncHttpTransport:
    """Requests on the running event loop."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        context = credentials.tls.context() if endpoint.secure else None
        self._client = _AsyncClient(endpoint.address, context)

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.AsyncTransport` says."""
        request = _request(self._endpoint, self._credentials, tensors, timeout)
        result = await self._ask(lambda: self._client.infer(**request), timeout)
        return outputs_of(result, self._endpoint)

    async def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.AsyncTransport` says."""
        model, headers = self._endpoint.model, self._credentials.headers()
        try:
            config = await self._ask(lambda: self._client.get_model_config(model, headers=headers), timeout)
        except ScoringError as error:
            if _unsupported(error):
                return None
            raise
        return bundle_of(config)

    async def _ask(self, call: Callable[[], Awaitable[Any]], timeout: float) -> Any:
        _retry_after.set(None)
        try:
            async with asyncio.timeout(timeout) as timer:
                return await call()
        except Exception as error:
            if timer.expired():
                raise late(self._endpoint, timeout) from error
            raise _translated(error, self._endpoint) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _request(
    endpoint: Endpoint, credentials: Credentials, tensors: Tensors, timeout: float
) -> dict[str, Any]:
    return {
        "model_name": endpoint.model,
        "inputs": inputs_of(tensors, triton.InferInput),
        "outputs": [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS],
        "timeout": microseconds(timeout),
        "headers": credentials.headers(),
    }


def _renew_after_fork() -> None:
    global _gevent_pid
    if _gevent_pid != os.getpid():
        gevent.reinit()
        _gevent_pid = os.getpid()


def _silence_interruptions() -> None:
    # gevent prints a KeyboardInterrupt before it raises it in the caller, who says it again.
    hub = gevent.get_hub()
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)


def _translated(error: Exception, endpoint: Endpoint) -> Setback | ScoringError:
    if isinstance(error, InferenceServerException):
        return _refusal(error.status(), one_line(error.message()), endpoint)
    # BadGzipFile is an OSError, but says nothing about the connection.
    broken = isinstance(error, (OSError, HTTPParseError, aiohttp.ClientError))
    if broken and not isinstance(error, gzip.BadGzipFile):
        return unavailable(endpoint, error)
    # geventhttpclient has no class of its own for a host name that does not resolve.
    if isinstance(error, RuntimeError) and "resolve" in str(error):
        return unavailable(endpoint, error)
    # The stock client parses the body of a 200 without checking it.
    return ProtocolError(f"{endpoint.url} sent an answer that cannot be read: {one_line(error)}")


def _refusal(status: str | None, message: str, endpoint: Endpoint) -> Setback | ScoringError:
    match status:
        case "413":
            return TooLarge(f"{endpoint.url} refused the request: {message}")
        case "429":
            return overloaded(endpoint, message, _pause())
        case "502" | "503":
            return unavailable(endpoint, message, _pause())
        case "504":
            return DeadlineError(f"{endpoint.url} gave up: {message}")
        case str() if status.startswith("4"):
            return RequestError(f"{endpoint.url} refused the request: {message}")
        case _:
            return ScoringError(f"{endpoint.url} failed to score ({status}): {message}")


def _unsupported(error: ScoringError) -> bool:
    cause = error.__cause__
    return isinstance(cause, InferenceServerException) and cause.status() == UNSUPPORTED


def _pause() -> float | None:
    """Seconds until the time that Retry-After names, RFC 9110 10.2.3; None if it names none."""
    value = (_retry_after.get() or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
