"""The HTTP wire of the remote scorers, on `tritonclient.http` and `tritonclient.http.aio`. Retries nothing.

The stock blocking client stands on gevent: it belongs to the thread that made it, its timeouts are those
of single socket operations, and a connection that was interrupted must not be used again. So each thread
has a client of its own, a gevent timer bounds the whole attempt, and a failure discards the client.
"""

import asyncio
import gzip
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import gevent
import gevent.ssl
import tritonclient.http as triton
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._http_stock import CONNECT_S, AsyncStockClient, StockClient, forget_pause, pause
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
    shows_life,
    unavailable,
)
from prefrm.errors import DeadlineError, ProtocolError, RequestError, ScoringError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors

__all__ = ["AsyncHttpTransport", "HttpTransport"]

# What a server answers that has no such part of the protocol.
UNSUPPORTED = "501"

# Of each thread, the process in which its gevent hub is known to work: the thread that forks takes its hub
# into the child, where it must be renewed.
_hub = threading.local()


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

    def live(self, *, timeout: float) -> bool:
        """As `prefrm.client._transport.Transport` says."""
        headers = self._credentials.headers()
        try:
            self._ask(lambda client: client.is_server_live(headers=headers), timeout)
        except (Setback, ScoringError) as error:
            return shows_life(error)
        return True

    def _ask(self, call: Callable[[Any], Any], timeout: float) -> Any:
        client = self._client()
        forget_pause()
        timer = gevent.Timeout.start_new(timeout)
        try:
            return call(client)
        except BaseException as error:
            self._discard(client)
            if error is timer:
                raise late(self._endpoint, timeout) from error
            if isinstance(error, Exception):
                raise _translated(error, self._endpoint, self._credentials) from error
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
            local.client = StockClient(
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
        self._client = AsyncStockClient(endpoint.address, context)

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

    async def live(self, *, timeout: float) -> bool:
        """As `prefrm.client._transport.AsyncTransport` says."""
        headers = self._credentials.headers()
        try:
            await self._ask(lambda: self._client.is_server_live(headers=headers), timeout)
        except (Setback, ScoringError) as error:
            return shows_life(error)
        return True

    async def _ask(self, call: Callable[[], Awaitable[Any]], timeout: float) -> Any:
        forget_pause()
        try:
            async with asyncio.timeout(timeout) as timer:
                return await call()
        except Exception as error:
            if timer.expired():
                raise late(self._endpoint, timeout) from error
            raise _translated(error, self._endpoint, self._credentials) from error

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
    if getattr(_hub, "pid", os.getpid()) != os.getpid():
        gevent.reinit()
    _hub.pid = os.getpid()


def _silence_interruptions() -> None:
    # gevent prints a KeyboardInterrupt before it raises it in the caller, who says it again.
    hub = gevent.get_hub()
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)


def _translated(error: Exception, endpoint: Endpoint, credentials: Credentials) -> Setback | ScoringError:
    if isinstance(error, InferenceServerException):
        return _refusal(error.status(), one_line(credentials.hidden(error.message())), endpoint)
    # BadGzipFile is an OSError, but says nothing about the connection.
    broken = isinstance(error, (OSError, HTTPParseError, aiohttp.ClientError))
    if broken and not isinstance(error, gzip.BadGzipFile):
        return unavailable(endpoint, error)
    # geventhttpclient has no class of its own for a host name that does not resolve, nor aiohttp for a
    # session that another task closed because it found the server gone.
    if isinstance(error, RuntimeError) and ("resolve" in str(error) or "closed" in str(error)):
        return unavailable(endpoint, error)
    # The stock client parses the body of a 200 without checking it.
    return ProtocolError(f"{endpoint.url} sent an answer that cannot be read: {one_line(error)}")


def _refusal(status: str | None, message: str, endpoint: Endpoint) -> Setback | ScoringError:
    match status:
        case "413":
            return TooLarge(f"{endpoint.url} refused the request: {message}")
        case "429":
            return overloaded(endpoint, message, pause())
        # 425 says nothing of the request: it came too early to be trusted.
        case "425" | "502" | "503":
            return unavailable(endpoint, message, pause())
        case "408" | "504":
            return DeadlineError(f"{endpoint.url} gave up: {message}")
        case str() if status.startswith("4"):
            return RequestError(f"{endpoint.url} refused the request: {message}")
        case _:
            return ScoringError(f"{endpoint.url} failed to score ({status}): {message}")


def _unsupported(error: ScoringError) -> bool:
    cause = error.__cause__
    return isinstance(cause, InferenceServerException) and cause.status() == UNSUPPORTED
