"""Tensors as the wires carry them, to and from numpy: raw bytes, and lists of elements.

Knows which inputs the protocol has; decides nothing about models. `prefrm.tensors` has the layout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.errors import ProtocolError
from prefrm.protocol import CONTEXT, INPUTS, TensorSpec, check_input_names
from prefrm.tensors import pack, split_elements
from serving.encoding import decode_base64
from serving.errors import InvalidRequestError
from serving.limits import Limits
from serving.steps import finish

__all__ = ["InputTensor", "pack", "read_bytes_input", "read_inputs", "to_elements"]

_SPECS = {spec.name: spec for spec in INPUTS}
# Of a shape that a client sent: it may have any number of extents, and an extent any number of digits.
SHOWN_CHARACTERS = 60
PIECE_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTensor:
    """An input as it was received, unchecked: either `raw` bytes or a flat list of `elements`.

    With `base64`, the elements of either are base64, as MLServer's parameter `content_type` says.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None = None
    elements: Sequence[object] | None = None
    base64: bool = False

    @property
    def content_bytes(self) -> int:
        """Bytes of what it holds."""
        if self.raw is not None:
            return len(self.raw)
        return sum(len(element) for element in self.elements or () if isinstance(element, bytes | str))


def read_inputs(tensors: Sequence[InputTensor], limits: Limits) -> dict[str, npt.NDArray[Any]]:
    """The named arrays of a request. Content is read once its shape is within the limits.

    Raises:
        InvalidRequestError: an input is missing, unknown, sent twice, of another datatype or shape, beyond
            the limits, or its content does not fill its shape.
    """
    try:
        check_input_names(tensor.name for tensor in tensors)
    except ProtocolError as error:
        raise InvalidRequestError(str(error)) from error
    return {tensor.name: read_bytes_input(tensor, _SPECS[tensor.name], limits) for tensor in tensors}


def read_bytes_input(tensor: InputTensor, spec: TensorSpec, limits: Limits) -> npt.NDArray[np.object_]:
    """The array of an input of BYTES with two extents. Raises `InvalidRequestError` as `read_inputs`."""
    if tensor.datatype != spec.datatype:
        raise InvalidRequestError(
            f"input {spec.name!r} must have the datatype {spec.datatype}; received {tensor.datatype!r}"
        )
    if not spec.admits(tensor.shape) or min(tensor.shape) < 0:
        received = str(list(tensor.shape))[:SHOWN_CHARACTERS]
        raise InvalidRequestError(
            f"input {spec.name!r} must have the shape {list(spec.shape)}; received {received}"
        )
    check = limits.check_context if spec is CONTEXT else limits.check_counts
    check(*tensor.shape)
    needed = prod(tensor.shape)
    if tensor.raw is not None:
        content = _split(tensor.raw, spec.name)
    else:
        content = (_element(value, spec.name) for value in tensor.elements or ())
    if tensor.base64:
        content = (_decoded(element, spec.name) for element in content)
    elements = list(islice(content, needed + 1))
    if len(elements) != needed:
        count = len(elements) if len(elements) < needed else f"more than {needed}"
        raise InvalidRequestError(
            f"input {spec.name!r} has {count} elements; its shape {list(tensor.shape)} needs {needed}"
        )
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(tensor.shape)


def _split(raw: bytes | memoryview, name: str) -> Iterator[bytes]:
    try:
        yield from split_elements(raw)
    except ValueError as error:
        raise InvalidRequestError(f"input {name!r} does not hold elements of BYTES: {error}") from error


def _element(value: object, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise InvalidRequestError(f"input {name!r} has an element that is no string: {type(value).__name__}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"input {name!r} has an element that is no valid text: {error.reason}"
        ) from error


def _decoded(element: bytes, name: str) -> bytes:
    pieces = (element[at : at + PIECE_BYTES] for at in range(0, len(element), PIECE_BYTES))
    try:
        return finish(decode_base64(pieces))
    except ValueError as error:
        raise InvalidRequestError(
            f"input {name!r} has the content_type base64 and an element that is not base64: {error}"
        ) from error


def to_elements(array: npt.NDArray[Any]) -> list[str] | npt.NDArray[Any]:
    """The flat JSON elements of an output: text for BYTES."""
    return [element.decode("utf-8") for element in array.flat] if array.dtype == object else array.ravel()
