"""Frames of HTTP/2 (RFC 9113) on a bare socket: what no gRPC client sends."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)
# :method POST, :scheme http, then the four headers that `first_headers` put into HPACK's dynamic table.
LATER_HEADERS = b"\x83\x86\xc1\xc0\xbf\xbe"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


GREETING = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)


def first_headers(path: str) -> bytes:
    """The HPACK block that begins a connection's first call of gRPC; `LATER_HEADERS` begins the others."""
    indexed = ((b"\x44", path.encode()), (b"\x41", b"x"), (b"\x5f", b"application/grpc"))
    block = b"\x83\x86" + b"".join(key + bytes((len(value),)) + value for key, value in indexed)
    return block + b"\x40\x02te\x08trailers"


def connected(address: str, timeout: float = 5.0) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def resets(first: int, count: int) -> bytes:
    """Calls that are opened and reset at once, with odd stream numbers from `first` on."""
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, LATER_HEADERS) + frame(RST_STREAM, 0, stream, CANCEL)
        for stream in range(first, first + 2 * count, 2)
    )
