"""Tensors as raw bytes, which the server and the clients exchange, to and from numpy.

Little-endian and row-major; an element of BYTES is a uint32 length and that many bytes.

Shapes: B groups of one request, all of one size; K candidates of a group.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefrm.errors import ProtocolError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors, TensorSpec

__all__ = ["RawTensor", "pack", "read_outputs", "read_tensors", "split_elements"]

_LENGTH = struct.Struct("<I")


class RawTensor(NamedTuple):
    """A tensor as an answer describes it; only its content has a type to rely on."""

    name: Any
    datatype: Any
    shape: Any
    content: bytes


def pack(array: npt.NDArray[Any]) -> bytes:
    """The raw content of a tensor."""
    if array.dtype == object:
        return b"".join(part for element in array.flat for part in (_LENGTH.pack(len(element)), element))
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def split_elements(content: bytes | memoryview) -> Iterator[bytes]:
    """The elements of a raw BYTES tensor. Raises `ValueError` where one is cut short."""
    offset = 0
    while offset < len(content):
        start = offset + _LENGTH.size
        if start > len(content):
            raise ValueError("it ends inside the length of an element")
        offset = start + _LENGTH.unpack_from(content, offset)[0]
        if offset > len(content):
            raise ValueError("it ends inside an element")
        yield bytes(content[start:offset])


def read_outputs(tensors: Sequence[RawTensor], *, count: int, size: int) -> Tensors:
    """The outputs of an answer to B = `count` groups of K = `size` candidates, from untrusted tensors.

    Raises:
        ProtocolError: the tensors are not exactly `MATRIX_OUTPUTS`, each of the datatype and shape that the
            request implies, or a content does not fill its shape.
    """
    return read_tensors(tensors, {spec: [count] + [size] * (len(spec.shape) - 1) for spec in MATRIX_OUTPUTS})


def read_tensors(tensors: Sequence[RawTensor], shapes: Mapping[TensorSpec, list[int]]) -> Tensors:
    """The arrays of untrusted tensors, which are exactly those of `shapes`. Raises as `read_outputs`."""
    wanted = [spec.name for spec in shapes]
    named = {str(tensor.name): tensor for tensor in tensors}
    if sorted(named) != sorted(wanted) or len(tensors) != len(wanted):
        names = ", ".join(str(tensor.name) for tensor in tensors)
        raise ProtocolError(f"the outputs must be {', '.join(wanted)}; received {names or 'none'}")
    return {spec.name: _read(named[spec.name], spec, shape) for spec, shape in shapes.items()}


def _read(tensor: RawTensor, spec: TensorSpec, shape: list[int]) -> npt.NDArray[Any]:
    if tensor.datatype != spec.datatype or tensor.shape != shape:
        raise ProtocolError(
            f"tensor {spec.name!r} must be {spec.datatype} {shape}; received {tensor.datatype} {tensor.shape}"
        )
    try:
        return _unpack(tensor.content, spec.datatype).reshape(shape)
    except ValueError as error:
        raise ProtocolError(f"tensor {spec.name!r} is not {spec.datatype} {shape}: {error}") from error


def _unpack(content: bytes, datatype: str) -> npt.NDArray[Any]:
    """The elements of an FP32, BOOL or BYTES tensor, flat. Raises `ValueError` if they are not that."""
    if datatype == "FP32":
        return np.frombuffer(content, "<f4").astype(np.float32, copy=False)
    if datatype == "BOOL":
        if max(content, default=0) > 1:
            raise ValueError("a BOOL is neither 0 nor 1")
        return np.frombuffer(content, np.bool_)
    elements = list(split_elements(content))
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array
