"""The bodies of HTTP inference: JSON, with or without raw tensors behind it.

Translates bytes to `InferRequest` and `InferResponse` to bytes. Knows no routes and no framework.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefrm.protocol import GRADIENT_OUTPUTS, OUTPUTS, TIE
from serving.dataplane import InferRequest, InferResponse
from serving.errors import InvalidRequestError, UnsupportedError
from serving.limits import Limits
from serving.steps import Steps
from serving.tensors import InputTensor, pack, to_elements
from serving.wire.json_reading import LongString, read_json, shown
from serving.wire.json_writing import write_json
from serving.wire.parameters import BASE64, CONTENT_TYPE, read_timeout

__all__ = [
    "BinaryChoice",
    "json_size",
    "parse_request",
    "plain_parameters",
    "read_object",
    "render_response",
]

_DATATYPES = {spec.name: spec.datatype for spec in (*OUTPUTS, *GRADIENT_OUTPUTS)}
# Of an id, a name or a parameter.
TEXT_BYTES = 2**15
_JSON = {dict: "object", list: "array", str: "string", int: "integer", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryChoice:
    """Which outputs the client wants as raw bytes: those named, and a default for the others."""

    default: bool
    named: Mapping[str, bool]

    def __call__(self, name: str) -> bool:
        """Whether the output is to be sent as raw bytes."""
        return self.named.get(name, self.default)


def json_size(total: int, header_length: str | None) -> int:
    """Bytes of JSON at the beginning of a body.

    Args:
        total: bytes of the body.
        header_length: the header `Inference-Header-Content-Length`, or None if the body is all JSON.

    Raises:
        InvalidRequestError: the header is not a number, or exceeds the body.
    """
    if header_length is None:
        return total
    digits = header_length[:20]
    if not digits.isdecimal() or int(digits) > total:
        raise InvalidRequestError(
            f"Inference-Header-Content-Length is {digits!r}; the body has {total} bytes"
        )
    return int(digits)


def parse_request(
    body: bytes | bytearray, size: int, *, model: str, version: str, limits: Limits
) -> Steps[tuple[InferRequest, BinaryChoice]]:
    """Read an inference request, whose tensors stay in the body.

    Args:
        body: the decompressed body.
        size: of its JSON, which raw tensors may follow.
        model: from the path.
        version: from the path, or "".
        limits: bound the JSON.

    Raises:
        InvalidRequestError: the body is not what the protocol describes.
        UnsupportedError: it asks for shared memory or for classification.
    """
    header = yield from read_object(body, size, limits)
    parameters = plain_parameters(_field(header, "parameters", dict, default={}))
    outputs = [_as(dict, output, "an output") for output in _field(header, "outputs", list, default=[])]
    timeout = read_timeout(parameters)
    inputs = yield from _inputs(_field(header, "inputs", list), memoryview(body)[size:], limits)
    if parameters.get("timeout", 0) < 0:
        raise InvalidRequestError(f"'timeout' must not be negative; received {parameters['timeout']}")
    request = InferRequest(
        model=model,
        version=version,
        id=_field(header, "id", str, default=""),
        inputs=inputs,
        outputs=[_field(output, "name", str) for output in outputs],
        timeout=timeout,
    )
    default = _field(parameters, "binary_data_output", bool, default=False)
    named = {_field(output, "name", str): _output_is_binary(output, default) for output in outputs}
    return request, BinaryChoice(default=default, named=named)


def render_response(response: InferResponse, binary: BinaryChoice) -> Steps[tuple[bytes, int | None]]:
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
        yield
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    text = (yield from write_json(header | {"outputs": outputs})).encode()
    return b"".join([text, *raws]), len(text) if raws else None


def _inputs(entries: list[object], raw: memoryview, limits: Limits) -> Steps[list[InputTensor]]:
    tensors, offset = [], 0
    for entry in entries:
        yield
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
            is_base64 = parameters.get(CONTENT_TYPE) == BASE64
            data = _flat(_field(fields, "data", list), len(shape))
            elements = yield from _elements(data, limits, is_base64=is_base64)
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


def read_object(body: bytes | bytearray, end: int, limits: Limits) -> Steps[dict[str, Any]]:
    """The JSON object at the beginning of a body. Raises `InvalidRequestError` as `read_json`."""
    value = yield from read_json(body, end, limits)
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the request must be a JSON object; received {shown(value)}")
    return value


def _field(fields: dict[str, Any], name: str, kind: type, *, default: object = ...) -> Any:
    if name not in fields:
        if default is not ...:
            return default
        raise InvalidRequestError(f"the request lacks {name!r}")
    return _as(kind, fields[name], repr(name))


def _as(kind: type, value: object, what: str) -> Any:
    if kind is str and isinstance(value, LongString):
        return _text(value, what)
    # bool is a kind of int to Python, but not to JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequestError(f"{what} must be of the JSON kind {_JSON[kind]}; received {shown(value)}")
    return value


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with their long strings decoded, apart from those that are longer than any may be."""
    return {
        name: value.text(TEXT_BYTES) if isinstance(value, LongString) and len(value) <= TEXT_BYTES else value
        for name, value in parameters.items()
    }


def _elements(data: list[object], limits: Limits, *, is_base64: bool) -> Steps[list[object]]:
    """The elements of an input, with long strings as UTF-8: as text, some would take four times that."""
    elements: list[object] = []
    for value in data:
        if isinstance(value, LongString):
            value = yield from _long_element(value, limits, is_base64=is_base64)
        elements.append(value)
    return elements


def _long_element(value: LongString, limits: Limits, *, is_base64: bool) -> Steps[bytes]:
    yield
    if not is_base64:
        # Lone surrogates are refused with the text that they are in.
        return value.text(max(limits.prompt_bytes, limits.text_bytes)).encode("utf-8", "surrogatepass")
    pieces = []
    try:
        for piece in value.pieces():
            pieces.append(piece)
            yield
    except ValueError as error:
        raise InvalidRequestError(f"an element is not base64: {error}") from None
    return b"".join(pieces)


def _text(value: LongString, what: str) -> str:
    try:
        return value.text(TEXT_BYTES)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{what}: {error}") from None


def _flat(data: list[object], depth: int) -> list[object]:
    # Row-major, flat or nested as deep as the shape says: both are allowed.
    for _ in range(depth - 1):
        if not any(isinstance(element, list) for element in data):
            break
        data = [inner for outer in data for inner in (outer if isinstance(outer, list) else [outer])]
    return data
