"""The wire of a chat endpoint, on httpx. Retries nothing.

An endpoint that names no model, or that lists none, is asked all the same: its list of models tells which
kind of server it is and whether replicas serve the same model, and is not needed for a question.
"""

import asyncio
import json
import os
import ssl
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._statuses import CONNECT_S, LONGEST_TEXT, close_dropped, http_failure
from prefrm.client._transport import Failure, Unfit
from prefrm.errors import DeadlineError, OverloadedError, ProtocolError, ServerUnavailableError

__all__ = ["ChatTransport"]

LONGEST_ANSWER = 64 * 2**20
"""Bytes of a completion: 4,096 tokens, 20 alternatives of each, of several samples, with room to spare."""
REFUSED = (400, 413, 422)
"""Statuses by which an endpoint refuses one question: an image, a length or a field that it does not take."""


class ChatTransport:
    """A session with one endpoint, as `prefrm.client._transport.Wire` describes.

    Args:
        endpoint: whose path, such as `v1`, stands where that of a judge's server has the model.
        credentials: of each request.
        model: that questions name; "" for the only one that the endpoint serves.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials, model: str) -> None:
        self._base, self._model = endpoint.url, model
        tls = credentials.tls.context() if endpoint.secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = client = httpx.AsyncClient(
            transport=_Connections(tls),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            headers=credentials.headers() | {"Accept-Encoding": "identity"},
            trust_env=False,
        )
        loop = asyncio.get_running_loop()
        weakref.finalize(self, close_dropped, lambda: client.is_closed, client.aclose, loop, os.getpid())

    async def complete(self, body: bytes) -> list[Mapping[str, Any]]:
        """The choices of a chat completion, at least one.

        Raises `Unfit` if the endpoint refuses this question, and as every wire.
        """
        answer = await self._ask("POST", f"{self._base}/chat/completions", LONGEST_ANSWER, content=body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(one, dict) for one in choices):
            raise ProtocolError("it is not a chat completion with choices")
        return choices

    async def models(self) -> list[Mapping[str, Any]]:
        """What the endpoint says of its models; nothing where it has no such list, or fails to make one."""
        try:
            answer = await self._ask("GET", f"{self._base}/models", LONGEST_TEXT)
        except Failure as failure:
            if issubclass(failure.kind, ServerUnavailableError | OverloadedError | DeadlineError):
                raise
            return []
        except Unfit:
            return []
        found = answer.get("data") if isinstance(answer, dict) else None
        return [one for one in found or () if isinstance(one, dict)]

    async def tokenize(self, model: str, text: str) -> list[int]:
        """The ids of a text without special tokens; none where the server has no `/tokenize`, or it fails.

        A proxy may pass on the API alone, and answer anything else with any status.
        """
        parts = urlsplit(self._base)
        body = json.dumps({"model": model, "prompt": text, "add_special_tokens": False}).encode()
        url = f"{parts.scheme}://{parts.netloc}/tokenize"
        try:
            answer = await self._ask("POST", url, LONGEST_TEXT, content=body)
        except (Failure, Unfit, ProtocolError):
            return []
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        return tokens if isinstance(tokens, list) and all(isinstance(one, int) for one in tokens) else []

    async def bundle(self) -> str:
        names = [str(one.get("id")) for one in await self.models()]
        return next((name for name in names if name == self._model), names[0] if len(names) == 1 else "")

    async def live(self) -> None:
        await self.models()

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, url: str, most: int, content: bytes | None = None) -> Any:
        """The JSON of an answer, limited in bytes."""
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            async with self._client.stream(method, url, content=content, headers=headers) as response:
                if response.status_code != 200:
                    raise _failure(response, await _read(response, LONGEST_TEXT))
                return _json(await _read(response, most))
        except (httpx.HTTPError, OSError) as error:
            raise Failure("UNAVAILABLE", error) from error
        except RuntimeError as error:
            # The session was closed, as the server showed no sign of life to another request.
            if self._client.is_closed:
                raise Failure("UNAVAILABLE", error) from error
            raise


class _Connections(httpx.AsyncBaseTransport):
    """As many connections as there are requests at once, each in a pool of its own.

    A pool looks at all of its connections whenever a request begins or ends, which costs more CPU time than
    the request itself.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._idle: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        one = self._idle.pop() if self._idle else self._opened()
        try:
            response = await one.handle_async_request(request)
        except BaseException:
            self._idle.append(one)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, one, self._idle)
        return response

    async def aclose(self) -> None:
        for one in self._all:
            await one.aclose()

    def _opened(self) -> httpx.AsyncHTTPTransport:
        self._all.append(httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False))
        return self._all[-1]


class _Body(httpx.AsyncByteStream):
    """The body of an answer, at whose end its connection is idle."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        connection: httpx.AsyncHTTPTransport,
        idle: list[httpx.AsyncHTTPTransport],
    ) -> None:
        self._stream, self._connection, self._idle = stream, connection, idle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._idle.append(self._connection)


def _failure(response: httpx.Response, content: bytes) -> Exception:
    status = response.status_code
    failure = http_failure(status, response.headers, content)
    return Unfit(str(failure)) if status in REFUSED else failure


async def _read(response: httpx.Response, most: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > most:
            raise ProtocolError(f"it has more than {most:,} bytes, the most that it may have")
    return bytes(content)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"it is not JSON: {error}") from error
