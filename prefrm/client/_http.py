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
from collections.abc import Callable
from typing import Any

import aiohttp
import gevent
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import bundle_of, inputs_of, late, one_line, outputs_of, unavailable
from prefrm.errors import DeadlineError, OverloadedError, ProtocolError, RequestError, ScoringError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors

__all__ = ["AsyncHttpTransport", "HttpTransport"]

# The process whose gevent hub is known to work; a forked child must renew the one it inherited.
_gevent_pid = os.getpid()


class HttpTransport:
    """Blocking requests; may be used from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._outputs = [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS]
        self._local = threading.local()
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()

    def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.Transport` says."""
        inputs = inputs_of(tensors, triton.InferInput)
        result = self._ask(
            lambda client: client.infer(
                self._endpoint.model, inputs, outputs=self._outputs, timeout=_microseconds(timeout)
            ),
            timeout,
        )
        return outputs_of(result, self._endpoint)

    def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.Transport` says."""
        return bundle_of(self._ask(lambda client: client.get_model_config(self._endpoint.model), timeout))

    def _ask(self, call: Callable[[Any], Any], timeout: float) -> Any:
        client = self._client()
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
            local.client = triton.InferenceServerClient(
                self._endpoint.address, connection_timeout=None, network_timeout=None
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

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._outputs = [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS]
        self._client = triton_aio.InferenceServerClient(endpoint.address, conn_timeout=None)

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.AsyncTransport` says."""
        try:
            async with asyncio.timeout(timeout) as timer:
                result = await self._client.infer(
                    self._endpoint.model,
                    inputs_of(tensors, triton.InferInput),
                    outputs=self._outputs,
                    timeout=_microseconds(timeout),
                )
        except Exception as error:
            if timer.expired():
                raise late(self._endpoint, timeout) from error
            raise _translated(error, self._endpoint) from error
        return outputs_of(result, self._endpoint)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _microseconds(seconds: float) -> int:
    # The protocol's `timeout` parameter: the server skips what has waited longer than this.
    return max(1, int(seconds * 1e6))


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


def _translated(error: Exception, endpoint: Endpoint) -> ScoringError:
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


def _refusal(status: str | None, message: str, endpoint: Endpoint) -> ScoringError:
    match status:
        case "429":
            return OverloadedError(f"{endpoint.url} is overloaded: {message}")
        case "502" | "503":
            return unavailable(endpoint, message)
        case "504":
            return DeadlineError(f"{endpoint.url} gave up: {message}")
        case str() if status.startswith("4"):
            return RequestError(f"{endpoint.url} refused the request: {message}")
        case _:
            return ScoringError(f"{endpoint.url} failed to score ({status}): {message}")
