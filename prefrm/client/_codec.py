"""A request's tensors as bytes, and its answer's tensors from bytes that are not trusted.

The stock client's decoder is not used: it believes the sizes, shapes and types that an answer claims.

Shapes: B groups of one request, all of one size; K candidates of a group.
"""

import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prefrm.errors import ProtocolError
from prefrm.protocol import IMAGES, MATRIX_OUTPUTS, Tensors, TensorSpec

__all__ = ["Claim", "Question", "microseconds", "pack"]

_LENGTH = struct.Struct("<I")
_DTYPES = {"FP32": np.dtype("<f4"), "BOOL": np.dtype(np.bool_)}


class Claim(NamedTuple):
    """A tensor of an answer, unchecked: of any types but for its content."""

    name: Any
    datatype: Any
    shape: Any
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an answer is compared with: the model, B, K and the request's id."""

    model: str
    count: int
    size: int
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def of(cls, model: str, tensors: Tensors) -> "Question":
        """The question of a request with these tensors."""
        count, size = tensors[IMAGES.name].shape
        return cls(model=model, count=count, size=size)

    def check(self, model: object, request_id: object, claims: Sequence[Claim]) -> Tensors:
        """The arrays of an answer that has exactly what was asked for. Raises `ProtocolError` of any other."""
        if (model, request_id) != (self.model, self.id):
            raise ProtocolError(
                f"it is from the model {model!r} to the request {request_id!r}; "
                f"asked was {self.model!r}, with the request {self.id!r}"
            )
        wanted = [spec.name for spec in MATRIX_OUTPUTS]
        if sorted(str(claim.name) for claim in claims) != sorted(wanted):
            names = ", ".join(str(claim.name) for claim in claims)
            raise ProtocolError(f"it must have the outputs {', '.join(wanted)}; it has {names or 'none'}")
        named = {claim.name: claim for claim in claims}
        return {spec.name: self._array(spec, named[spec.name]) for spec in MATRIX_OUTPUTS}

    def _array(self, spec: TensorSpec, claim: Claim) -> npt.NDArray[Any]:
        shape = [self.count] + [self.size] * (len(spec.shape) - 1)
        if claim.datatype != spec.datatype or claim.shape != shape:
            raise ProtocolError(
                f"tensor {spec.name!r} is {claim.datatype} {claim.shape}, but {self.count} groups of "
                f"{self.size} candidates were sent, which need {spec.datatype} {shape}"
            )
        if spec.datatype == "BYTES":
            flat = np.array([*_elements(claim.content), None], dtype=object)[:-1]
        elif len(claim.content) == prod(shape) * _DTYPES[spec.datatype].itemsize:
            flat = np.frombuffer(claim.content, _DTYPES[spec.datatype])
        else:
            flat = np.empty(0)
        if len(flat) != prod(shape) or (spec.datatype == "BOOL" and max(claim.content) > 1):
            raise ProtocolError(f"tensor {spec.name!r} has content that is not {spec.datatype} {shape}")
        return flat.reshape(shape)


def microseconds(seconds: float) -> int:
    """The protocol's `timeout` parameter, at least 1."""
    return max(1, int(seconds * 1e6))


def pack(array: npt.NDArray[Any]) -> bytes:
    """The content of a BYTES tensor: each element's length as little-endian uint32, and the element."""
    return b"".join(part for element in array.flat for part in (_LENGTH.pack(len(element)), element))


def _elements(content: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor's content; of one cut short, none."""
    offset, found = 0, list[bytes]()
    while offset + _LENGTH.size <= len(content):
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(content, offset)[0]
        found.append(content[start:offset])
    return iter(found if offset == len(content) else [])
