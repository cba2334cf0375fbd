"""One HTTP connection under raw bytes: what is refused, how its end is told, and the time limits."""

import contextlib
import json
import socket
import ssl
import time

import httpx
import pytest

from prefrm.access.tls import ServerTls
from prefrm.winmatrix import FakeScorer
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.wire import http_protocol
from tests.certificates import Authority

POST = b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


def connected(address, timeout=10.0):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def answer_to(address, *pieces):
    """All that comes back until the server closes the connection."""
    with connected(address) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(2**16):
                answer += more
    return answer


def refused(answer, status):
    """The message of the only answer, which must be an error and close the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nconnection: close" in head.lower()
    return json.loads(body)["error"]


SMUGGLED = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
AMBIGUOUS = {
    "Content-Length and Transfer-Encoding": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding and Content-Length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two Content-Lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "the same Content-Length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of Content-Lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed Content-Length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a hexadecimal Content-Length": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "an empty Content-Length": POST + b"Content-Length:\r\n\r\n{}",
    "Transfer-Encoding in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "two Transfer-Encodings": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded field": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": POST + b"Content-Length\t: 2\r\n\r\n{}",
    "a blank in a name": POST + b"Content Length: 2\r\n\r\n{}",
    "a control character in a name": POST + b"\x0bContent-Length: 2\r\n\r\n{}",
    "a NUL in a value": POST + b"X: a\x00b\r\n\r\n",
    "no colon": POST + b"nothing\r\n\r\n",
    "a bare LF after a field": POST + b"X: y\nContent-Length: 2\r\n\r\n{}",
    "a bare LF after the request line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    "an end in bare LFs": POST + b"Content-Length: 2\r\n\n{}",
    "a bare CR in a value": POST + b"X: a\rContent-Length: 2\r\n\r\n{}",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: y\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n\r\n0\r\n\r\n",
    "a chunk of 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends in a bare LF": CHUNKED + b"2\r\n{}\n0\r\n\r\n",
    "a chunk header in a bare LF": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "a chunk of too many digits": CHUNKED + b"1" * 30 + b"\r\n",
    "a folded trailer": CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer in a bare LF": CHUNKED + b"0\r\nX: y\nZ: z\r\n\r\n",
}


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_a_400_and_the_end_of_the_connection(served, request_):
    answer = answer_to(served.http, request_ + SMUGGLED)
    assert refused(answer, 400).startswith("the request is not valid HTTP: ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (GET.replace(b"1.1", b"2.0") + b"\r\n", 505),
        (GET + b"X: %s\r\n\r\n" % bytes(2**15).replace(b"\0", b"x"), 431),
        (GET + b"X: y\r\n" * 200 + b"\r\n", 431),
        (GET + b"x" * 2**20, 431),
        (CHUNKED + b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_the_server_does_not_take_is_refused_likewise(served, request_, status):
    refused(answer_to(served.http, request_), status)


def test_trailers_extensions_and_pipelined_requests_are_read(served):
    chunked = CHUNKED + b"2;a=b\r\n{}\r\n0\r\nDigest: x\r\nX: y\r\n\r\n"
    requests = chunked + CHUNKED + b"0\r\n\r\n" + GET + b"Connection: close\r\n\r\n"
    assert answer_to(served.http, requests).count(b"HTTP/1.1 200 OK") == 3
    bytewise = (requests[n : n + 1] for n in range(len(requests)))
    assert answer_to(served.http, *bytewise).count(b"HTTP/1.1 200 OK") == 3


def test_a_body_of_tiny_chunks_is_refused_before_all_of_it_is_parsed(served):
    started = time.process_time()
    message = refused(answer_to(served.http, CHUNKED, b"1\r\n \r\n" * 500_000), 400)
    assert "1001 chunks have 1001 bytes in all; send at least 64 bytes a chunk" in message
    # h11 alone takes ten seconds for all of them.
    assert time.process_time() - started < 2


def test_tiny_chunks_hold_up_nobody(served):
    with connected(served.http) as hostile:
        hostile.sendall(CHUNKED + b"1\r\n \r\n" * 999)
        started = time.monotonic()
        assert httpx.get(f"http://{served.http}/v2/health/live").status_code == 200
        assert time.monotonic() - started < 1
        hostile.sendall(b"0\r\n\r\n")
        assert hostile.recv(2**16).startswith(b"HTTP/1.1 400 ")


@pytest.fixture
def impatient(scorer, monkeypatch):
    """A server that waits half a second for the head of a request, and lingers as long."""
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.5)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=Limits(header_s=0.5))) as addresses:
        yield addresses


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_a_connection_that_sends_no_head_is_closed(impatient, port):
    address = getattr(impatient, port)
    assert answer_to(address) == b""
    assert "did not come within 0.5 s" in refused(answer_to(address, GET), 408)


def test_a_head_that_trickles_in_is_not_waited_for(impatient):
    started = time.monotonic()
    with connected(impatient.http) as connection:
        connection.sendall(GET)
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            connection.sendall(b"X: y\r\n")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 3


def test_an_idle_connection_is_kept_between_requests(impatient):
    with connected(impatient.http) as connection:
        for _ in range(2):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.7)
        connection.sendall(GET)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("port", ["http", "metrics"])
def test_connections_are_bounded(impatient, port, monkeypatch):
    monkeypatch.setattr(http_protocol, "CONNECTIONS", 3)
    address = getattr(impatient, port)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connected(address)) for _ in range(3)]
        for connection in kept[1:]:
            connection.sendall(GET + b"\r\n")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 ")
        started = time.monotonic()
        assert answer_to(address, GET + b"\r\n") == b""
        assert time.monotonic() - started < 0.4
        kept[1].sendall(GET + b"\r\n")
        assert kept[1].recv(2**16).startswith(b"HTTP/1.1 ")
    assert answer_to(address, GET + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 ")


def test_a_handshake_that_never_ends_is_cut_off(tmp_path):
    cert, key = Authority(tmp_path).issue("server")
    scorer = FakeScorer(lambda prompt, image: 0.0)
    tls, limits = ServerTls(cert=cert, key=key), Limits(header_s=0.5)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), tls=tls, limits=limits)) as served:
        for port in (served.http, served.metrics):
            with connected(port, timeout=5) as connection, contextlib.suppress(ConnectionError, ssl.SSLError):
                assert connection.recv(100) == b""


@pytest.mark.parametrize("length", [b"Content-Length: 50000000", b"Transfer-Encoding: chunked"])
def test_an_answer_before_the_end_of_the_body_is_read_by_who_sends_all_first(served, length):
    body = bytes(50_000_000) if length.startswith(b"C") else (b"10000\r\n" + bytes(2**16) + b"\r\n") * 800
    head = b"POST /v2/nothing HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n"
    assert "Not Found" in refused(answer_to(served.http, head, body), 404)


def test_who_sends_on_after_the_answer_is_cut_off(impatient):
    head = b"POST /v2/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    started = time.monotonic()
    sent = 0
    with connected(impatient.http) as connection, pytest.raises(ConnectionError):
        connection.sendall(head)
        while sent < 200:
            connection.sendall(bytes(2**20))
            sent += 1
    # Of what a client sends in half a second, 32 MiB are read.
    assert sent < 100
    assert "Not Found" in refused(answer_to(impatient.http, head), 404)
    assert time.monotonic() - started < 4
