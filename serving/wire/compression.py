"""Content-Encoding of HTTP bodies: gzip and deflate."""

import zlib

from serving.errors import InvalidRequestError, TooLargeError, UnsupportedError
from serving.inflight import Lease
from serving.steps import Steps

__all__ = ["compress", "decompress"]

# zlib's window sizes: 15 with a zlib header, 31 with a gzip header.
_WINDOWS = {"gzip": 31, "deflate": 15}
# Compressed members that may follow each other in one body: bgzip's of 64 KiB make 4,096 in the largest.
# Empty ones would otherwise cost time and nothing of the limit on bytes.
MAX_MEMBERS = 10_000
# In one step.
READ_BYTES, INFLATED_BYTES = 2**16, 2**20
DEFLATED_BYTES = 2**18
FASTEST = 1


def decompress(
    body: bytes | bytearray, encoding: str, *, limit: int, lease: Lease
) -> Steps[bytes | bytearray]:
    """The body behind a Content-Encoding: identity, gzip (all its members, RFC 1952) or deflate.

    Args:
        body: as it was sent.
        encoding: the header's value.
        limit: bytes that the result may have.
        lease: takes what is inflated, before it is.

    Raises:
        UnsupportedError: the encoding is unknown.
        InvalidRequestError: the body is corrupt, or goes on after its end.
        TooLargeError: it has more than `limit` bytes; no more than that is ever inflated.
        OverloadedError: there is no room for what is inflated.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise UnsupportedError(f"unknown Content-Encoding {encoding!r}; send gzip, deflate or none")
    content, at = bytearray(), 0
    for _ in range(MAX_MEMBERS if encoding == "gzip" else 1):
        at = yield from _inflate(memoryview(body), at, encoding, content, limit=limit, lease=lease)
        if at == len(body):
            return content
    raise InvalidRequestError(f"the {encoding} body goes on for {len(body) - at} bytes after its end")


def _inflate(
    body: memoryview, at: int, encoding: str, content: bytearray, *, limit: int, lease: Lease
) -> Steps[int]:
    """Append what is compressed from `at` on to `content`; where it ends."""
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    while not inflater.eof:
        read = inflater.unconsumed_tail or body[at : at + READ_BYTES]
        if not read:
            raise InvalidRequestError(f"the {encoding} body is truncated")
        at += 0 if inflater.unconsumed_tail else len(read)
        try:
            piece = inflater.decompress(read, min(INFLATED_BYTES, limit + 1 - len(content)))
        except zlib.error as error:
            raise InvalidRequestError(f"the body is no {encoding} data: {error}") from error
        if len(content) + len(piece) > limit:
            raise TooLargeError(f"the decompressed request exceeds the limit of {limit} bytes")
        lease.add(len(piece))
        content += piece
        yield
    return at - len(inflater.unused_data)


def compress(body: bytes, accept_encoding: str) -> Steps[tuple[bytes, str | None]]:
    """The body as the client accepts it, and its Content-Encoding (None if it is left as it is)."""
    accepted = [_coding(part) for part in accept_encoding.lower().split(",")]
    encoding = next((name for name in _WINDOWS if name in accepted), None)
    if encoding is None:
        return body, None
    deflater = zlib.compressobj(FASTEST, zlib.DEFLATED, _WINDOWS[encoding])
    pieces = []
    for start in range(0, len(body), DEFLATED_BYTES):
        pieces.append(deflater.compress(memoryview(body)[start : start + DEFLATED_BYTES]))
        yield
    return b"".join([*pieces, deflater.flush()]), encoding


def _coding(part: str) -> str:
    # "gzip;q=0" refuses gzip; any other weight accepts it.
    name, _, weight = part.replace(" ", "").partition(";q=")
    return "" if weight and not weight.strip("0.") else name
