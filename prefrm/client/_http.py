"""The HTTP wire of the remote scorers, on aiohttp. Retries nothing.

The stock client (`tritonclient.http.aio`) follows redirects, reads and inflates answers without bound and drops
their headers, and it has no public way to change that. So this wire has its own session and its own reader of the
protocol's JSON header.
"""

import asyncio
import io
import json
import os
import time
import weakref
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp

from prefrm.client._codec import Claim, Question, microseconds, pack
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import Failure, TooLarge
from prefrm.errors import (
    DeadlineError,
    OverloadedError,
    ProtocolError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.protocol import BUNDLE_PARAMETER, INPUTS, MATRIX_OUTPUTS, Tensors, answer_bytes

__all__ = ["HttpTransport"]

# A machine that is not there never answers; one that is there connects much sooner than this.
CONNECT_S = 5.0
# A loop on another thread closes its connections within milliseconds, unless it hangs.
RELEASE_S = 1.0
# Of a model's configuration, and of the reason for a refusal.
LONGEST_TEXT = 2**20
# aiohttp warns of a larger body that is not a file.
LONGEST_BYTES = 2**20
HEADER_LENGTH = "Inference-Header-Content-Length"
UNSUPPORTED = 501
# 425 says nothing of the request: it came too early to be trusted. Any other 3xx or 4xx is a refusal, and any
# other status a failure of the server.
KINDS: dict[int, type[ScoringError]] = {
    408: DeadlineError,
    413: TooLarge,
    425: ServerUnavailableError,
    429: OverloadedError,
    502: ServerUnavailableError,
    503: ServerUnavailableError,
    504: DeadlineError,
}


class HttpTransport:
    """A session, as `prefrm.client._transport.Transport` describes."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._model = endpoint.model
        self._root = f"{endpoint.scheme}://{endpoint.address}/v2"
        self._path = f"{self._root}/models/{quote(endpoint.model, safe='')}"
        context = credentials.tls.context() if endpoint.secure else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers=credentials.headers() | {"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        weakref.finalize(self, _release, self._session, asyncio.get_running_loop(), os.getpid())

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        question = Question.of(self._model, tensors)
        header, body = _request(question, tensors, timeout)
        most = answer_bytes(question.count, question.size)
        headers, content = await self._ask(
            "POST", f"{self._path}/infer", most, data=body, headers={HEADER_LENGTH: str(header)}
        )
        answer, claims = _parsed(content, headers.get(HEADER_LENGTH))
        return question.check(answer.get("model_name"), answer.get("id"), claims)

    async def bundle(self) -> str:
        _, content = await self._ask("GET", f"{self._path}/config", LONGEST_TEXT)
        try:
            return str(_json(content)["parameters"][BUNDLE_PARAMETER]["string_value"])
        except (LookupError, TypeError):
            return ""

    async def live(self) -> None:
        await self._ask("GET", f"{self._root}/health/live", LONGEST_TEXT)

    async def close(self) -> None:
        await self._session.close()

    async def _ask(self, method: str, url: str, most: int, **request: Any) -> tuple[Any, bytes]:
        """The headers and the content of an answer of at most so many bytes."""
        try:
            async with self._session.request(method, url, allow_redirects=False, **request) as response:
                if response.status != 200:
                    raise _failure(response, await _read(response, LONGEST_TEXT))
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ProtocolError("it is compressed, although that was not asked for")
                return response.headers, await _read(response, most)
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(ServerUnavailableError, error) from error
        except RuntimeError as error:
            # The session was closed, as the server showed no sign of life to another request.
            if self._session.closed:
                raise Failure(ServerUnavailableError, error) from error
            raise


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > most:
            raise ProtocolError(f"it has more than {most:,} bytes, the most that it may have")
    return bytes(content)


def _failure(response: aiohttp.ClientResponse, content: bytes) -> Failure:
    """The failure that an answer of another status than 200 reports."""
    status = response.status
    try:
        reason = str(_json(content)["error"])
    except (ProtocolError, LookupError, TypeError):
        reason = content.decode("utf-8", "replace")
    if 300 <= status < 400:
        reason = f"it redirects to {response.headers.get('Location')}; write the URL of the server itself"
    kind = KINDS.get(status, RequestError if 300 <= status < 500 else ScoringError)
    pause = _pause(response.headers.get("Retry-After", "")) if status in (429, 502, 503) else None
    reason = reason if kind is not ScoringError else f"{status}: {reason}"
    return Failure(kind, reason, pause, unsupported=status == UNSUPPORTED)


def _request(question: Question, tensors: Tensors, timeout: float) -> tuple[int, bytes | io.BytesIO]:
    """The length of a request's JSON header, and its whole body."""
    contents = {spec: pack(tensors[spec.name]) for spec in INPUTS}
    inputs = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": tensors[spec.name].shape,
            "parameters": {"binary_data_size": len(content)},
        }
        for spec, content in contents.items()
    ]
    outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in MATRIX_OUTPUTS]
    parameters = {"timeout": microseconds(timeout)}
    request = {"id": question.id, "parameters": parameters, "inputs": inputs, "outputs": outputs}
    header = json.dumps(request).encode()
    body = b"".join([header, *contents.values()])
    return len(header), body if len(body) <= LONGEST_BYTES else io.BytesIO(body)


def _parsed(content: bytes, header_length: str | None) -> tuple[dict[str, Any], list[Claim]]:
    """The JSON header of an answer, and its tensors from what follows the header."""
    try:
        end = len(content) if header_length is None else int(header_length)
        answer, claims = _json(content[:end]), list[Claim]()
        for output in answer["outputs"]:
            start, end = end, end + output["parameters"]["binary_data_size"]
            claims.append(Claim(output["name"], output["datatype"], output["shape"], content[start:end]))
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"it is not an answer with binary outputs: {error!r}") from error
    return answer, claims


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"it is not JSON: {error}") from error


def _pause(value: str) -> float | None:
    """Seconds until the time that Retry-After names, RFC 9110 10.2.3; None if it names none."""
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _release(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    """Close a session whose owner dropped it, or still has it when the program ends.

    aiohttp would warn about it then, when it can no longer be closed.
    """
    if session.closed or os.getpid() != pid:
        return
    try:
        asyncio.get_running_loop()
        in_a_loop = True
    except RuntimeError:
        in_a_loop = False
    if loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
        if not in_a_loop:
            # At the end of the program: a loop on another thread is stopped next.
            with suppress(TimeoutError):
                closing.result(timeout=RELEASE_S)
    elif not in_a_loop:
        (asyncio.run if loop.is_closed() else loop.run_until_complete)(session.close())
