"""The HTTP wire of the remote scorers, on aiohttp. Retries nothing.

The stock client (`tritonclient.http.aio`) follows redirects, reads and inflates answers without bound, drops
their headers, and has no public way to change that. So this wire has its own session, and its own reader of
the protocol's JSON header.
"""

import asyncio
import io
import json
import os
import weakref
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._statuses import CONNECT_S, LONGEST_TEXT, close_dropped, http_failure
from prefrm.client._transport import Failure, Question
from prefrm.errors import ProtocolError
from prefrm.protocol import (
    ANSWER_HEADER_BYTES,
    BUNDLE_PARAMETER,
    GRADIENT,
    GRADIENT_INPUTS,
    GRADIENT_OUTPUTS,
    INPUTS,
    KINDS_PARAMETER,
    MATRIX_OUTPUTS,
    PIXELS,
    UTILITIES,
    Tensors,
    TensorSpec,
    inputs_named,
)
from prefrm.tensors import RawTensor, pack, read_tensors
from prefrm.winmatrix import Inputs

__all__ = ["HttpTransport"]

HEADER_LENGTH = "Inference-Header-Content-Length"


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
        session, loop = self._session, asyncio.get_running_loop()
        weakref.finalize(self, close_dropped, lambda: session.closed, session.close, loop, os.getpid())

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        question = Question.of(self._model, tensors, timeout)
        request = _request(question.id, question.timeout, tensors, INPUTS, MATRIX_OUTPUTS)
        answer, outputs = await self._tensors("infer", request, question.answer_bytes)
        return question.read(answer.get("model_name"), answer.get("id"), outputs)

    async def gradient(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """Utilities of a group's pixels and their gradient, `prefrm.protocol.GRADIENT_OUTPUTS`.

        Args:
            tensors: `prefrm.protocol.GRADIENT_INPUTS`.
            timeout: as of `infer`, seconds after which the server may drop the request.
        """
        shape = tensors[PIXELS.name].shape
        request = _request("", max(1, int(timeout * 1e6)), tensors, GRADIENT_INPUTS, GRADIENT_OUTPUTS)
        most = ANSWER_HEADER_BYTES + 4 * (len(tensors[PIXELS.name]) + tensors[PIXELS.name].size)
        _, outputs = await self._tensors("gradient", request, most)
        return read_tensors(outputs, {UTILITIES: [shape[0]], GRADIENT: list(shape)})

    async def bundle(self) -> str:
        return _parameter(await self._config(), BUNDLE_PARAMETER)

    async def inputs(self) -> Inputs:
        config = await self._config()
        try:
            tensors = {str(one["name"]): bool(one.get("optional")) for one in config["input"]}
        except (LookupError, TypeError):
            tensors = {}
        return inputs_named(tensors, _parameter(config, KINDS_PARAMETER))

    async def live(self) -> None:
        await self._ask("GET", f"{self._root}/health/live", LONGEST_TEXT)

    async def close(self) -> None:
        await self._session.close()

    async def _config(self) -> Any:
        _, content = await self._ask("GET", f"{self._path}/config", LONGEST_TEXT)
        return _json(content)

    async def _tensors(
        self, route: str, request: tuple[int, bytes], most: int
    ) -> tuple[dict[str, Any], list[RawTensor]]:
        """The header of an answer with tensors of at most `most` bytes, and the tensors."""
        length, body = request
        headers, content = await self._ask(
            "POST",
            f"{self._path}/{route}",
            most,
            # As a file: aiohttp warns of other bodies of more than 1 MiB.
            data=io.BytesIO(body),
            headers={HEADER_LENGTH: str(length)},
        )
        return _parsed(content, headers.get(HEADER_LENGTH))

    async def _ask(self, method: str, url: str, most: int, **request: Any) -> tuple[Any, bytes]:
        """The headers and the content of an answer of at most so many bytes."""
        try:
            async with self._session.request(method, url, allow_redirects=False, **request) as response:
                if response.status != 200:
                    raise http_failure(response.status, response.headers, await _read(response, LONGEST_TEXT))
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


def _request(
    id_: str, timeout: int, tensors: Tensors, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[int, bytes]:
    """The length of a request's JSON header, and the whole body; `timeout` is in microseconds."""
    contents = {spec: pack(tensors[spec.name]) for spec in inputs if spec.name in tensors}
    described = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": tensors[spec.name].shape,
            "parameters": {"binary_data_size": len(content)},
        }
        for spec, content in contents.items()
    ]
    request = {
        "id": id_,
        "parameters": {"timeout": timeout},
        "inputs": described,
        "outputs": [{"name": spec.name, "parameters": {"binary_data": True}} for spec in outputs],
    }
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


def _parameter(config: Any, name: str) -> str:
    """A parameter of a model's configuration, which is not trusted; "" if it has none of that name."""
    try:
        return str(config["parameters"][name]["string_value"])
    except (LookupError, TypeError):
        return ""


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"it is not JSON: {error}") from error
