"""What a connection may do over gRPC, tried with frames of HTTP/2 that no gRPC client sends."""

import re
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from grpc._cython import cygrpc

import serving.server
from prefrm.access.tls import ServerTls
from prefrm.access.tokens import TokenFile
from serving.access.connections import GRPC_CONNECTION_OPTIONS
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.certificates import Authority
from tests.serving.http2 import (
    CANCEL,
    END_HEADERS,
    GOAWAY,
    GREETING,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    connected,
    first_headers,
    frame,
    resets,
)  # fmt: skip

TOKEN = "0123456789abcdef"
READY = "/inference.GRPCInferenceService/ServerReady"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@contextmanager
def server_with(monkeypatch, scorer, options=(), **given):
    """The addresses of a server whose connections have other bounds than the usual ones."""
    changed = tuple((dict(serving.server.GRPC_CONNECTION_OPTIONS) | dict(options)).items())
    monkeypatch.setattr(serving.server, "GRPC_CONNECTION_OPTIONS", changed)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), **given)) as addresses:
        yield addresses


def received(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection; `TimeoutError` if it does not."""
    pieces = b""
    try:
        while piece := connection.recv(65536):
            pieces += piece
    except ConnectionResetError:
        pass
    return pieces


def test_most_of_a_flood_of_resets_never_reaches_the_event_loop(scorer, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    flood = 20_000
    with (
        background(JudgeServer(scorer, ModelInfo(name="judge"), tokens=TokenFile(tokens))) as served,
        connected(served.grpc, 20) as connection,
    ):
        # Without a token, each call that the event loop begins is counted as refused.
        connection.sendall(GREETING + frame(HEADERS, END_HEADERS, 1, first_headers(INFER)))
        connection.sendall(frame(RST_STREAM, 0, 1, CANCEL) + resets(3, flood))
        connection.sendall(frame(PING, 0, 0, b"the last"))
        # C-core has read all of the flood when it answers this.
        answers = b""
        while b"the last" not in answers:
            answers += connection.recv(65536)
        time.sleep(0.5)
        text = httpx.get(
            f"http://{served.metrics}/metrics", headers={"authorization": f"Bearer {TOKEN}"}
        ).text
    counted = re.search(r'prefrm_requests_total.code="UNAUTHENTICATED",model="",wire="grpc". (\S+)', text)
    assert 0 < float(counted[1]) < flood / 20


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_connection_that_does_not_finish_its_handshake_is_closed(encrypted, scorer, tmp_path, monkeypatch):
    tls = None
    if encrypted:
        cert, key = Authority(tmp_path / "ours").issue("server")
        tls = ServerTls(cert=cert, key=key)
    starts = (b"", b"\x16\x03\x01\x02\x00\x01") if encrypted else (b"", PREFACE[:10], PREFACE)
    with server_with(monkeypatch, scorer, {"grpc.server_handshake_timeout_ms": 500}, tls=tls) as served:
        connections = [connected(served.grpc) for _ in starts]
        for connection, start in zip(connections, starts, strict=True):
            connection.sendall(start)
        for connection in connections:
            with connection:
                received(connection)


def test_connections_beyond_the_bound_are_closed_until_others_end(scorer, monkeypatch, until):
    with server_with(monkeypatch, scorer, {"grpc.max_allowed_incoming_connections": 2}) as served:
        with (
            connected(served.grpc) as first,
            connected(served.grpc) as second,
            connected(served.grpc) as third,
        ):
            assert received(third) == b""
            for connection in (first, second):
                connection.sendall(GREETING)
                assert connection.recv(1)
        until(lambda: _answers(served.grpc))


def _answers(address: str) -> bool:
    with connected(address) as connection, suppress(OSError):
        connection.sendall(GREETING)
        return connection.recv(1) != b""
    return False


def test_an_idle_connection_is_closed(scorer, monkeypatch):
    with (
        server_with(monkeypatch, scorer, {"grpc.max_connection_idle_ms": 300}) as served,
        connected(served.grpc) as connection,
    ):
        connection.sendall(GREETING)
        assert frame(GOAWAY, 0, 0)[3:5] in received(connection)


def test_a_silent_client_with_an_open_call_is_pinged_and_closed(scorer, monkeypatch):
    soon = {"grpc.keepalive_time_ms": 300, "grpc.http2.ping_timeout_ms": 300}
    with server_with(monkeypatch, scorer, soon) as served, connected(served.grpc) as connection:
        connection.sendall(GREETING + frame(HEADERS, END_HEADERS, 1, first_headers(INFER)))
        assert b"ping_timeout" in received(connection)


def test_a_client_may_ping_without_calls_but_not_too_often(scorer, monkeypatch):
    every = {"grpc.http2.min_ping_interval_without_data_ms": 20}
    with server_with(monkeypatch, scorer, every) as served, connected(served.grpc) as connection:
        connection.sendall(GREETING)
        for _ in range(6):
            connection.sendall(frame(PING, 0, 0, b"keepaliv"))
            time.sleep(0.1)
        answers = b""
        while answers.count(b"keepaliv") < 6:
            answers += connection.recv(65536)
        assert b"too_many_pings" not in answers
        connection.sendall(frame(PING, 0, 0, b"keepaliv") * 6)
        assert b"too_many_pings" in received(connection)


def test_a_call_whose_request_never_comes_ends_in_its_deadline(scorer):
    limits = Limits(deadline_s=0.3)
    with (
        background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served,
        connected(served.grpc) as connection,
    ):
        connection.sendall(GREETING + frame(HEADERS, END_HEADERS, 1, first_headers(INFER)))
        answer = b""
        while b"grpc-status" not in answer:
            answer += connection.recv(65536)
        assert b"grpc-message" in answer and b"did not arrive within 0.3 s" in answer


def test_every_option_is_one_of_c_core():
    # C-core ignores a name that it does not know.
    names = Path(cygrpc.__file__).read_bytes()
    assert not [name for name, _ in GRPC_CONNECTION_OPTIONS if name.encode() + b"\0" not in names]
