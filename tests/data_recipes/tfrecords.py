"""Records of TFRecord files, written without TensorFlow."""

import struct

from data_recipes.readers.tfrecord import _crc32c, _masked

__all__ = ["example", "field", "varint"]


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(**features: bytes) -> bytes:
    """A record of a `tf.train.Example`; each feature is an encoded list."""
    entries = b"".join(
        field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items()
    )
    payload = field(1, entries)
    header = struct.pack("<Q", len(payload))
    return (
        header
        + struct.pack("<I", _masked(_crc32c(header)))
        + payload
        + struct.pack("<I", _masked(_crc32c(payload)))
    )
