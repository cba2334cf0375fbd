"""The bodies of HTTP inference: JSON, with or without raw tensors behind it, and their compression.

Translates bytes to `InferRequest` and `InferResponse` to bytes. Knows no routes and no framework.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefrm.protocol import OUTPUTS, TIE
from serving.dataplane import InferRequest, InferResponse
from serving.errors import InvalidRequestError, TooLargeError, UnsupportedError
from serving.tensors import InputTensor, pack, to_elements
from serving.wire.parameters import BASE64, CONTENT_TYPE, read_timeout

__all__ = ["BinaryChoice", "compress", "decompress", "parse_request", "render_response"]

_DATATYPES = {spec.name: spec.datatype for spec in OUTPUTS}
_JSON = {dict: "object", list: "array", str: "string", int: "integer", bool: "true or false"}

# Of commas and brackets in JSON: nothing but these would take 25 times its own size once it is parsed.
MOST_MARKS = 1_000_000
# zlib's window sizes: 15 with a zlib header, 31 with a gzip header.
_WINDOWS = {"gzip": 31, "deflate": 15}
# Compressed members that may follow each other in one body: bgzip's of 64 KiB make 4,096 in the largest.
# Empty ones would otherwise cost time and nothing of the limit on bytes.
MOST_MEMBERS = 10_000
CHUNK_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryChoice:
    """Which outputs the client wants as raw bytes: those named, and a default for the others."""

    default: bool
    named: Mapping[str, bool]

    def __call__(self, name: str) -> bool:
        """Whether the output is to be sent as raw bytes."""
        return self.named.get(name, self.default)


def parse_request(
    body: bytes, header_length: str | None, *, model: str, version: str
) -> tuple[InferRequest, BinaryChoice]:
    """Read an inference request.

    Args:
        body: the decompressed body.
        header_length: the header `Inference-Header-Content-Length`, or None if the body is all JSON.
        model: from the path.
        version: from the path, or "".

    Raises:
        InvalidRequestError: the body is not what the protocol describes.
        UnsupportedError: it asks for shared memory or for classification.
    """
    size = _header_size(body, header_length)
    header = _json_object(body[:size])
    parameters = _field(header, "parameters", dict, default={})
    outputs = [_as(dict, output, "an output") for output in _field(header, "outputs", list, default=[])]
    timeout = read_timeout(parameters)
    if parameters.get("timeout", 0) < 0:
        raise InvalidRequestError(f"'timeout' must not be negative; received {parameters['timeout']}")
    request = InferRequest(
        model=model,
        version=version,
        id=_field(header, "id", str, default=""),
        inputs=_inputs(_field(header, "inputs", list), body[size:]),
        outputs=[_field(output, "name", str) for output in outputs],
        timeout=timeout,
    )
    default = _field(parameters, "binary_data_output", bool, default=False)
    named = {_field(output, "name", str): _output_is_binary(output, default) for output in outputs}
    return request, BinaryChoice(default=default, named=named)


def render_response(response: InferResponse, binary: BinaryChoice) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part if raw tensors follow it.

    In JSON, NaN is null, which typed clients refuse or read as 0. So `tie`, which is NaN everywhere for most
    judges, is left out if it was not asked for by name.
    """
    outputs: list[dict[str, Any]] = []
    raws: list[bytes] = []
    for name, array in response.outputs.items():
        if name == TIE.name and name not in binary.named and not binary(name) and np.isnan(array).all():
            continue
        output: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES[name],
            "shape": list(array.shape),
        }
        if binary(name):
            raws.append(pack(array))
            output["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            output["data"] = to_elements(array)
        outputs.append(output)
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    text = json.dumps(header | {"outputs": outputs}, allow_nan=False).encode()
    return b"".join([text, *raws]), len(text) if raws else None


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body behind a Content-Encoding: identity, gzip (all its members, RFC 1952) or deflate.

    Raises:
        UnsupportedError: the encoding is unknown.
        InvalidRequestError: the body is corrupt, or goes on after its end.
        TooLargeError: it has more than `limit` bytes; no more than that is ever inflated.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise UnsupportedError(f"unknown Content-Encoding {encoding!r}; send gzip, deflate or none")
    view, content, at = memoryview(body), bytearray(), 0
    for _ in range(MOST_MEMBERS if encoding == "gzip" else 1):
        try:
            at = _inflate(view, at, encoding, content, limit)
        except zlib.error as error:
            raise InvalidRequestError(f"the body is no {encoding} data: {error}") from error
        if at == len(view):
            return bytes(content)
    raise InvalidRequestError(f"the {encoding} body goes on for {len(view) - at} bytes after its end")


def _inflate(view: memoryview, at: int, encoding: str, content: bytearray, limit: int) -> int:
    """Append what is compressed from `at` on to `content`; where it ends."""
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    while not inflater.eof:
        if at == len(view):
            raise InvalidRequestError(f"the {encoding} body is truncated")
        # In chunks: what follows a member is copied each time one ends.
        chunk = view[at : at + CHUNK_BYTES]
        content += inflater.decompress(chunk, limit + 1 - len(content))
        if len(content) > limit:
            raise TooLargeError(f"the decompressed request exceeds the limit of {limit} bytes")
        at += len(chunk)
    return at - len(inflater.unused_data)


def compress(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """The body as the client accepts it, and its Content-Encoding (None if it is left as it is)."""
    accepted = [_coding(part) for part in accept_encoding.lower().split(",")]
    if "gzip" in accepted:
        return gzip.compress(body, compresslevel=1, mtime=0), "gzip"
    if "deflate" in accepted:
        return zlib.compress(body, level=1), "deflate"
    return body, None


def _coding(part: str) -> str:
    # "gzip;q=0" refuses gzip; any other weight accepts it.
    name, _, weight = part.replace(" ", "").partition(";q=")
    return "" if weight and not weight.strip("0.") else name


def _inputs(entries: list[object], raw: bytes) -> list[InputTensor]:
    tensors, offset = [], 0
    for entry in entries:
        fields = _as(dict, entry, "an input")
        parameters = _field(fields, "parameters", dict, default={})
        if "shared_memory_region" in parameters:
            raise UnsupportedError("shared memory is not supported; send the tensors in the request")
        chunk, elements = None, None
        shape = tuple(_as(int, extent, "an extent of a shape") for extent in _field(fields, "shape", list))
        if "binary_data_size" in parameters:
            size = _field(parameters, "binary_data_size", int)
            if not 0 <= size <= len(raw) - offset:
                raise InvalidRequestError(
                    f"binary_data_size is {size}, but {len(raw) - offset} bytes are left in the body"
                )
            chunk, offset = raw[offset : offset + size], offset + size
        else:
            elements = _flat(_field(fields, "data", list), len(shape))
        tensors.append(
            InputTensor(
                name=_field(fields, "name", str),
                datatype=_field(fields, "datatype", str),
                shape=shape,
                raw=chunk,
                elements=elements,
                base64=parameters.get(CONTENT_TYPE) == BASE64,
            )
        )
    if offset != len(raw):
        raise InvalidRequestError(f"{len(raw) - offset} bytes of the body belong to no input")
    return tensors


def _output_is_binary(output: dict[str, Any], default: bool) -> bool:
    parameters = _field(output, "parameters", dict, default={})
    if "shared_memory_region" in parameters:
        raise UnsupportedError("shared memory is not supported; take the tensors from the answer")
    if parameters.get("classification"):
        raise UnsupportedError("the classification extension is not supported")
    return bool(_field(parameters, "binary_data", bool, default=default))


def _header_size(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    digits = header_length[:20]
    if not digits.isdecimal() or int(digits) > len(body):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length is {digits!r}; the body has {len(body)} bytes"
        )
    return int(digits)


def _json_object(text: bytes) -> dict[str, Any]:
    if (found := sum(text.count(mark) for mark in (b",", b"[", b"{"))) > MOST_MARKS:
        raise InvalidRequestError(f"the request has {found} commas and brackets; the limit is {MOST_MARKS}")
    try:
        header = json.loads(text)
    # Hostile nesting ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise InvalidRequestError(f"the request must be a JSON object; received {str(header)[:60]!r}")
    return header


def _field(fields: dict[str, Any], name: str, kind: type, *, default: object = ...) -> Any:
    if name not in fields:
        if default is not ...:
            return default
        raise InvalidRequestError(f"the request lacks {name!r}")
    return _as(kind, fields[name], repr(name))


def _as(kind: type, value: object, what: str) -> Any:
    # bool is a kind of int to Python, but not to JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequestError(
            f"{what} must be of the JSON kind {_JSON[kind]}; received {str(value)[:60]!r}"
        )
    return value


def _flat(data: list[object], depth: int) -> list[object]:
    # Row-major, flat or nested as deep as the shape says: both are allowed.
    for _ in range(depth - 1):
        if not any(isinstance(element, list) for element in data):
            break
        data = [inner for outer in data for inner in (outer if isinstance(outer, list) else [outer])]
    return data
