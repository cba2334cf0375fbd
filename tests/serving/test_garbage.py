"""Bytes that are not even HTTP or gRPC, on each port of a real server, and messages that inflate."""

import random
import socket
import subprocess
import sys
from contextlib import suppress

import grpc
import psutil
import pytest

from prefrm.client import connect
from prefrm.winmatrix import FakeScorer, Group
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.serving.hostile_images import PICTURE, encoded
from tests.serving.hostile_messages import SERVICE

POST = b"POST /v2/models/judge/infer HTTP/1.1\r\nHost: x\r\n"
GARBAGE = {
    "noise": random.Random(0).randbytes(5000),
    "zeros": bytes(100_000),
    "nothing": b"",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "the preface of HTTP/2 and noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.Random(1).randbytes(5000),
    "HTTP/2 frames of the largest size": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + b"\xff\xff\xff\x00\x00\xff\xff\xff\xff" * 900,
    "an endless line": b"GET /" + b"x" * 1_000_000,
    "endless headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "broken chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "a huge chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello\r\n",
    "half a request": POST + b"Content-Length: 500\r\n\r\nhello",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "an old version": b"GET / HTTP/0.9\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a tunnel": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
}
GOOD = Group(prompt="a red cube", candidates=(encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG")))


@pytest.fixture(scope="module")
def server():
    scorer = FakeScorer(lambda prompt, image: len(image) / 1000)
    limits = Limits(request_bytes=32 * 2**20)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as addresses:
        yield addresses, scorer.score([GOOD])[0]


@pytest.mark.parametrize("port", ["http", "grpc", "metrics"])
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_and_the_next_client_is_answered(server, port, name):
    addresses, expected = server
    host, _, number = getattr(addresses, port).partition(":")
    received = b""
    # The server may hang up while we are still at it.
    with suppress(OSError), socket.create_connection((host, int(number)), timeout=5) as connection:
        connection.sendall(GARBAGE[name])
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            received += piece
    if port != "grpc" and received:
        assert received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 3", b"HTTP/1.1 2", b"HTTP/1.1 505"))
    for url in (addresses.grpc_url, addresses.http_url):
        with connect(url, deadline=20) as judge:
            assert (judge.score([GOOD])[0].p == expected.p).all()


INFLATING = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1], [("grpc.max_send_message_length", -1)])
try:
    channel.unary_unary(sys.argv[2], None, None)(bytes(200_000_000), compression=grpc.Compression.Gzip)
except grpc.RpcError as error:
    print(error.code().name)
"""


def test_a_message_that_inflates_is_refused_at_the_limit(server):
    addresses, _ = server
    process, command = (
        psutil.Process(),
        [sys.executable, "-c", INFLATING, addresses.grpc, f"{SERVICE}ModelInfer"],
    )
    before = process.memory_info().rss
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == grpc.StatusCode.RESOURCE_EXHAUSTED.name
    assert (process.memory_info().rss - before) / 2**20 < 64
