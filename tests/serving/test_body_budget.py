"""What a body costs over HTTP: bytes in flight are leased, refused beyond the budget, freed and returned."""

import contextlib
import gzip
import json
import threading
import tracemalloc
import zlib

import httpx
import pytest

from prefrm.protocol import OUTPUTS, encode_matrices
from prefrm.winmatrix import Group, WinMatrix
from serving.dataplane import InferResponse
from serving.errors import OverloadedError
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.steps import finish
from serving.wire import http_protocol
from serving.wire.compression import compress, decompress
from serving.wire.http_codec import BinaryChoice, render_response
from serving.wire.json_writing import write_json
from serving.wire.score_reading import Scoring
from tests.serving.score_calls import as_json, post
from tests.serving.step_times import longest_step
from tests.serving.test_http_protocol import answer_to, connected
from tests.serving.test_http_protocol import refused as refused_and_closed

MEBIBYTE = 2**20
# A request may hold half of it.
SMALL = Limits(request_bytes=2 * MEBIBYTE, in_flight_bytes=8 * MEBIBYTE)
PATHS = [b"/v1/score", b"/v2/models/judge/infer", b"/v2/repository/index"]
IN_FLIGHT = "prefrm_in_flight_bytes"


@pytest.fixture(scope="module")
def cramped(scorer):
    """A server with a small budget."""
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=SMALL)) as addresses:
        yield addresses


def binary(served, group):
    """The status of an inference request with raw tensors."""
    raws = [
        b"".join(len(e).to_bytes(4, "little") + e for e in elements)
        for elements in ([group.prompt.encode()], group.candidates)
    ]
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [1, n], "parameters": {"binary_data_size": len(raw)}}
        for name, n, raw in zip(("prompt", "images"), (1, group.size), raws, strict=True)
    ]
    header = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    url = f"http://{served.http}/v2/models/judge/infer"
    return httpx.post(url, content=header + b"".join(raws), headers=headers, timeout=60).status_code


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_too_large_is_refused_unread(cramped, metric, path):
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n"
    answer = answer_to(cramped.http, head + b"Content-Length: 3000000\r\n\r\n")
    assert "3000000 bytes or more" in refused_and_closed(answer, 413)
    chunks = (b"10000\r\n" + b" " * 2**16 + b"\r\n" for _ in range(40))
    answer = answer_to(cramped.http, head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert "or more; the limit is 2097152" in refused_and_closed(answer, 413)
    assert metric(cramped, IN_FLIGHT) == 0


@pytest.fixture(scope="module")
def full(scorer):
    """A server of whose budget of 8 MiB other requests hold 6."""
    server = JudgeServer(scorer, ModelInfo(name="judge"), limits=SMALL)
    with background(server) as served, contextlib.ExitStack() as others:
        for size in (4, 2):
            others.enter_context(server._plane.in_flight.lease()).add(size * MEBIBYTE)
        yield served


PACKED = gzip.compress(b" " * 2_000_000)
BODIES = {
    # Of a body whose size is known, not one byte is read.
    "of known size": (b"Content-Length: 2000000", b""),
    "in chunks": (b"Transfer-Encoding: chunked", (b"10000\r\n" + b" " * 2**16 + b"\r\n") * 30),
    "compressed": (b"Content-Encoding: gzip\r\nContent-Length: %d" % len(PACKED), PACKED),
}


@pytest.mark.parametrize(("headers", "body"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", PATHS)
def test_what_has_no_room_is_a_429_and_what_is_small_has_room(full, group, path, headers, body):
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n\r\n"
    answer = answer_to(full.http, head, body)
    assert "no room for a request of" in refused_and_closed(answer, 429)
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    assert post(full, as_json([group("a")])).status_code == 200


@pytest.mark.parametrize(
    "body", [b"{", b'{"groups": [1]}', b"\xff" * 100_000, gzip.compress(b" " * 3_000_000)]
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_refused_body_returns_its_bytes(cramped, metric, body, encoding):
    response = post(cramped, body, **{"Content-Encoding": encoding})
    assert response.status_code in (400, 413)
    assert metric(cramped, IN_FLIGHT) == 0


SENDERS = {"tensors": binary, "JSON": lambda served, group: post(served, as_json([group])).status_code}


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_a_request_that_is_scored_holds_its_images_alone(gated, png, metric, until, send):
    group = Group(prompt="large", candidates=(bytes(16 * MEBIBYTE), png(3)))
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        tracemalloc.start()
        try:
            sender = threading.Thread(target=send, args=(served, group))
            sender.start()
            until(lambda: gated.calls)
            assert metric(served, IN_FLIGHT) == pytest.approx(16 * MEBIBYTE, rel=0.01)
            held = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/serving/*.py")])
            held = held.filter_traces([tracemalloc.Filter(False, "*/tests/*")]).statistics("lineno")
            assert sum(statistic.size for statistic in held) < 18 * MEBIBYTE, held[:5]
        finally:
            tracemalloc.stop()
            gated.gate.set()
            sender.join()
        until(lambda: metric(served, IN_FLIGHT) == 0)


def test_bytes_are_leased_before_they_are_inflated():
    limits = Limits(request_bytes=MEBIBYTE, in_flight_bytes=4 * MEBIBYTE)
    budget = InFlightBytes(limits)
    body = zlib.compress(bytes(50 * MEBIBYTE))
    tracemalloc.start()
    try:
        with (
            budget.lease() as other,
            budget.lease() as lease,
            pytest.raises(OverloadedError, match="no room for a request of"),
        ):
            other.add(MEBIBYTE)
            finish(decompress(body, "deflate", limit=100 * MEBIBYTE, lease=lease))
        assert tracemalloc.get_traced_memory()[1] < 6 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert budget.used == 0


UNJUDGED = json.dumps({"groups": [{"prompt": "", "images": [None] * 1024}]}).encode()
UNREAD_HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(UNJUDGED)


def test_an_answer_that_nobody_reads_is_counted_and_cut_off(scorer, metric, until, monkeypatch):
    monkeypatch.setattr(http_protocol, "READ_S", 0.5)
    server = JudgeServer(scorer, ModelInfo(name="judge"))
    with background(server) as served, connected(served.http) as silent:
        silent.sendall(UNREAD_HEAD + UNJUDGED)
        # The answer has 26 MB, of which the system's buffers take some.
        until(lambda: 2**24 < metric(served, IN_FLIGHT) < 2**25)
        until(lambda: metric(served, IN_FLIGHT) == 0)
        received = 0
        with contextlib.suppress(ConnectionError):
            while more := len(silent.recv(2**20)):
                received += more
    assert received < 2**24


def test_an_answer_without_room_is_a_429_before_it_is_made(scorer, metric):
    server = JudgeServer(scorer, ModelInfo(name="judge"))
    with background(server) as served, contextlib.ExitStack() as others:
        for size in (500, 250, 120, 60):
            others.enter_context(server._plane.in_flight.lease()).add(size * MEBIBYTE)
        assert post(served, UNJUDGED).status_code == 429
        assert metric(served, IN_FLIGHT) == 930 * MEBIBYTE


def test_an_answer_that_never_has_room_is_a_413(cramped, metric):
    response = post(cramped, UNJUDGED)
    assert response.status_code == 413
    assert "the limit is 4194304" in response.json()["error"]
    assert metric(cramped, IN_FLIGHT) == 0


def test_the_largest_answer_is_written_in_short_steps():
    matrices = [WinMatrix.missing([""] * 64) for _ in range(64)]
    arrays = encode_matrices(matrices, [spec.name for spec in OUTPUTS])
    response = InferResponse(model="judge", version="1", id="", outputs=arrays)
    works = [render_response(response, BinaryChoice(default=False, named={})), compress(bytes(2**24), "gzip")]
    works.append(write_json([[None] * 1024] * 1024))
    scoring = Scoring(groups=[], refusals=[[""] * 1024], model="", version="", timeout=None)
    works.append(scoring.answer([WinMatrix.missing(["x"] * 1024)], "judge", "1"))
    for work in works:
        assert longest_step(work) < 0.1


@pytest.mark.parametrize(
    "value",
    [None, [], {}, [[]], [1, None, "a\u00e9"], {"a": [[1.5] * 5000, []], "b": {"c": True}}, ["x"] * 5000],
)
def test_json_is_written_as_json_writes_it(value):
    assert finish(write_json(value)) == json.dumps(value)
