"""Rows of TFRecord files of `tf.train.Example`, without TensorFlow.

A record is framed as: length (uint64, little-endian), CRC-32C of the length, payload, CRC-32C of the payload.
The payload is a protocol buffer: Example {1: Features {1: map<name, Feature>}}, Feature {1: BytesList,
2: FloatList, 3: Int64List}, each list {1: repeated values}. A feature of one value is that value, others are
lists. The checksum of the length is verified; that of the payload is not, for speed.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_recipes.readers.part import Numbered, Row
from prefrm.errors import DatasetError

__all__ = ["read_tfrecord"]

MAX_RECORD_BYTES = 256 * 2**20
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
BYTES_LIST, FLOAT_LIST = 1, 2
CASTAGNOLI = 0x82F63B78  # the reversed polynomial of CRC-32C


def read_tfrecord(path: Path) -> Iterator[Numbered]:
    """(number, row) of a file.

    Raises:
        DatasetError: it is not a TFRecord file of examples, or its framing is damaged; values may be damaged
            without an error.
    """
    try:
        for n, payload in enumerate(_records(path)):
            yield n, _example(payload)
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise DatasetError(f"{path} is damaged or not a TFRecord file of examples: {error}") from error


def _records(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while header := file.read(12):
            size, crc = struct.unpack("<QI", header)
            if _masked(_crc32c(header[:8])) != crc or size > MAX_RECORD_BYTES:
                raise ValueError(f"the length of the record at byte {file.tell() - 12} is damaged")
            payload = file.read(size)
            if len(payload) < size or len(file.read(4)) < 4:
                raise ValueError("it ends inside a record")
            yield payload


def _example(payload: bytes) -> Row:
    entries = [dict(_fields(entry)) for _, features in _fields(payload) for _, entry in _fields(features)]
    return {bytes(entry[1]).decode("utf-8"): _feature(entry[2]) for entry in entries}


def _feature(data: bytes) -> Any:
    values: list[Any] = []
    for kind, content in _fields(data):
        for _, value in _fields(content):
            values += _numbers(kind, value)
    return values[0] if len(values) == 1 else values


def _numbers(kind: int, value: Any) -> list[Any]:
    """The values of one entry of a list: numbers may be packed, many in one entry."""
    if kind == BYTES_LIST:
        return [bytes(value)]
    if kind == FLOAT_LIST:
        return list(struct.unpack(f"<{len(value) // 4}f", value))
    if isinstance(value, int):
        return [_signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, content) of a message: bytes, or an integer for a varint."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if at + size > len(data):
            raise ValueError("a field ends outside its message")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
