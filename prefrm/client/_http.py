"""The HTTP wire of the remote scorers, on aiohttp. Retries nothing.

The stock client (`tritonclient.http.aio`) follows redirects, reads and inflates answers without bound, drops
their headers, and has no public way to change that. So this wire has its own session, and its own reader of
the protocol's JSON header.
"""

import asyncio
import io
import json
import os
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import Failure, Question
from prefrm.errors import ProtocolError
from prefrm.protocol import BUNDLE_PARAMETER, INPUTS, MATRIX_OUTPUTS, Tensors
from prefrm.tensors import RawTensor, pack

__all__ = ["HttpTransport"]

# A machine that is not there never answers; one that is there connects much sooner than this.
CONNECT_S = 5.0
# A loop on another thread closes its connections within milliseconds, unless it hangs.
RELEASE_S = 1.0
# Of a model's configuration, and of the reason for a refusal.
LONGEST_TEXT = 2**20
HEADER_LENGTH = "Inference-Header-Content-Length"
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
        question = Question.of(self._model, tensors, timeout)
        length, body = _request(question, tensors)
        headers, content = await self._ask(
            "POST",
            f"{self._path}/infer",
            question.answer_bytes,
            # As a file: aiohttp warns of other bodies of more than 1 MiB.
            data=io.BytesIO(body),
            headers={HEADER_LENGTH: str(length)},
        )
        answer, outputs = _parsed(content, headers.get(HEADER_LENGTH))
        return question.read(answer.get("model_name"), answer.get("id"), outputs)

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
            raise Failure("UNAVAILABLE", error) from error
        except RuntimeError as error:
            # The session was closed, as the server showed no sign of life to another request.
            if self._session.closed:
                raise Failure("UNAVAILABLE", error) from error
            raise


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > most:
            raise ProtocolError(f"it has more than {most:,} bytes, the most that it may have")
    return bytes(content)


def _failure(response: aiohttp.ClientResponse, content: bytes) -> Failure:
    """What an answer of another status than 200 raises."""
    status, headers = response.status, response.headers
    try:
        reason = str(_json(content)["error"])
    except (ProtocolError, LookupError, TypeError):
        reason = content.decode("utf-8", "replace")
    if 300 <= status < 400:
        reason = f"it redirects to {headers.get('Location')}; write the URL of the server itself"
    code = CODES.get(status, "INVALID_ARGUMENT" if 300 <= status < 500 else f"HTTP {status}")
    return Failure(code, reason, _pause(headers) if status in (429, 502, 503) else None)


def _request(question: Question, tensors: Tensors) -> tuple[int, bytes]:
    """The length of a request's JSON header, and the whole body."""
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
    parameters = {"timeout": question.timeout}
    request = {"id": question.id, "parameters": parameters, "inputs": inputs, "outputs": outputs}
    header = json.dumps(request).encode()
    return len(header), b"".join([header, *contents.values()])


def _parsed(content: bytes, header_length: str | None) -> tuple[dict[str, Any], list[RawTensor]]:
    """The JSON header of an answer, and its tensors, whose contents follow the header."""
    try:
        end = len(content) if header_length is None else int(header_length)
        answer, outputs = _json(content[:end]), list[RawTensor]()
        for one in answer["outputs"]:
            start, end = end, end + one["parameters"]["binary_data_size"]
            outputs.append(RawTensor(one["name"], one["datatype"], one["shape"], content[start:end]))
        if end != len(content):
            raise ValueError(f"{len(content)} bytes instead of {end}")
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"it is not an answer with binary outputs: {error!r}") from error
    return answer, outputs


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"it is not JSON: {error}") from error


def _pause(headers: Mapping[str, str]) -> float | None:
    """Seconds until the time that Retry-After names, RFC 9110 10.2.3; None if it names none."""
    value = headers.get("Retry-After", "")
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
    # Outside any loop, such as at the end of the program: a loop on another thread is stopped next.
    ending = asyncio._get_running_loop() is None
    if loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
        with suppress(TimeoutError):
            closing.result(timeout=RELEASE_S) if ending else None
    elif ending:
        (asyncio.run if loop.is_closed() else loop.run_until_complete)(session.close())
