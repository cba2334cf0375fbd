"""What a body costs over HTTP: bytes in flight are leased, refused beyond the budget, freed and returned."""

import gzip
import json
import threading
import time
import tracemalloc
import zlib

import httpx
import pytest

from prefrm.protocol import OUTPUTS, encode_matrices
from prefrm.winmatrix import Group, WinMatrix
from serving.dataplane import InferResponse
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.steps import finish
from serving.wire.compression import compress, decompress
from serving.wire.http_codec import BinaryChoice, render_response
from serving.wire.json_writing import write_json
from tests.serving.score_calls import as_json, post, refused
from tests.serving.test_http_protocol import answer_to
from tests.serving.test_http_protocol import refused as refused_and_closed

MEBIBYTE = 2**20
# A request may hold half of it.
SMALL = Limits(request_bytes=2 * MEBIBYTE, in_flight_bytes=8 * MEBIBYTE)
IN_FLIGHT = "prefrm_in_flight_bytes"


@pytest.fixture(scope="module")
def cramped(scorer):
    """A server with a small budget."""
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=SMALL)) as addresses:
        yield addresses


@pytest.fixture
def occupied(gated, png, metric, until):
    """A server whose budget a scored request of 1.9 MiB takes a part of."""
    group = Group(prompt="large", images=(bytes(1_900_000), png(3)))
    with background(JudgeServer(gated, ModelInfo(name="judge"), limits=SMALL)) as served:
        body = json.dumps(as_json([group])).encode()
        answers = [b""]
        sender = threading.Thread(target=lambda: answers.append(binary(served, group)))
        sender.start()
        until(lambda: gated.calls)
        del body
        yield served, gated
        gated.gate.set()
        sender.join()
        until(lambda: metric(served, IN_FLIGHT) == 0)
        assert answers[1] == 200


def binary(served, group):
    """The status of an inference request with raw tensors."""
    raws = [
        b"".join(len(e).to_bytes(4, "little") + e for e in elements)
        for elements in ([group.prompt.encode()], group.images)
    ]
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [1, n], "parameters": {"binary_data_size": len(raw)}}
        for name, n, raw in zip(("prompt", "images"), (1, group.size), raws, strict=True)
    ]
    header = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    url = f"http://{served.http}/v2/models/judge/infer"
    return httpx.post(url, content=header + b"".join(raws), headers=headers, timeout=60).status_code


def test_a_scored_request_holds_the_bytes_of_its_images(occupied, metric):
    served, _ = occupied
    assert metric(served, IN_FLIGHT) == pytest.approx(1_900_000, rel=0.01)


@pytest.mark.parametrize("path", ["/v1/score", "/v2/models/judge/infer", "/v2/repository/index"])
def test_a_body_beyond_the_budget_is_refused_unread(occupied, metric, path):
    served, _ = occupied
    before = metric(served, IN_FLIGHT)
    # Not one byte of the body is sent.
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" % path.encode()
    assert "3000000 bytes or more" in refused_and_closed(answer_to(served.http, head), 413)
    chunked = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    chunks = (b"10000\r\n" + b" " * 2**16 + b"\r\n" for _ in range(40))
    assert "or more; the limit is 2097152" in refused_and_closed(
        answer_to(served.http, chunked, *chunks), 413
    )
    assert metric(served, IN_FLIGHT) == before


def test_what_has_no_room_is_a_429_and_small_requests_still_have(scorer, gated, group, png, until):
    limits = Limits(request_bytes=MEBIBYTE, in_flight_bytes=4 * MEBIBYTE)
    with background(JudgeServer(gated, ModelInfo(name="judge"), limits=limits)) as served:
        large = Group(prompt="large", images=(bytes(900_000), png(3)))
        senders = [threading.Thread(target=binary, args=(served, large)) for _ in range(2)]
        for number, sender in enumerate(senders):
            sender.start()
            until(lambda n=number: n or gated.calls)
        time.sleep(0.3)
        packed = gzip.compress(b" " * 1_000_000)
        response = post(served, packed, **{"Content-Encoding": "gzip"})
        assert "no room for a request of" in refused(response, 429)
        assert int(response.headers["Retry-After"]) >= 1
        small = []
        sender = threading.Thread(
            target=lambda: small.append(post(served, as_json([group("a")])).status_code)
        )
        sender.start()
        gated.gate.set()
        for thread in (*senders, sender):
            thread.join()
        assert small == [200]


@pytest.mark.parametrize(
    "body", [b"{", b'{"groups": [1]}', b"\xff" * 100_000, gzip.compress(b" " * 3_000_000)]
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_refused_body_returns_its_bytes(cramped, metric, body, encoding):
    response = post(cramped, body, **{"Content-Encoding": encoding})
    assert response.status_code in (400, 413)
    assert metric(cramped, IN_FLIGHT) == 0


def test_a_body_is_freed_while_its_groups_wait(gated, png, until):
    group = Group(prompt="large", images=(bytes(16 * MEBIBYTE), png(3)))
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        for send in (binary, lambda served, group: post(served, as_json([group])).status_code):
            gated.calls.clear()
            gated.gate.clear()
            tracemalloc.start()
            try:
                sender = threading.Thread(target=send, args=(served, group))
                sender.start()
                until(lambda: gated.calls)
                snapshot = tracemalloc.take_snapshot()
                held = [s for s in snapshot.statistics("lineno") if "serving" in s.traceback[0].filename]
                assert sum(statistic.size for statistic in held) < 18 * MEBIBYTE
            finally:
                tracemalloc.stop()
                gated.gate.set()
                sender.join()


def test_bytes_are_leased_before_they_are_inflated():
    limits = Limits(request_bytes=MEBIBYTE, in_flight_bytes=4 * MEBIBYTE)
    budget = InFlightBytes(limits)
    body = zlib.compress(bytes(50 * MEBIBYTE))
    tracemalloc.start()
    try:
        with budget.lease() as lease, pytest.raises(Exception, match="no room for a request of"):
            finish(decompress(body, "deflate", limit=100 * MEBIBYTE, lease=lease))
        assert tracemalloc.get_traced_memory()[1] < 6 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert budget.used == 0


def test_the_largest_answer_is_written_in_short_steps():
    matrices = [WinMatrix.missing([""] * 64) for _ in range(64)]
    arrays = encode_matrices(matrices, [spec.name for spec in OUTPUTS])
    response = InferResponse(model="judge", version="1", id="", outputs=arrays)
    works = [render_response(response, BinaryChoice(default=False, named={})), compress(bytes(2**24), "gzip")]
    works.append(write_json([[None] * 1024] * 1024))
    for work in works:
        longest = 0.0
        while True:
            started = time.thread_time()
            try:
                next(work)
            except StopIteration:
                break
            longest = max(longest, time.thread_time() - started)
        assert longest < 0.1


@pytest.mark.parametrize(
    "value",
    [None, [], {}, [[]], [1, None, "a\u00e9"], {"a": [[1.5] * 5000, []], "b": {"c": True}}, ["x"] * 5000],
)
def test_json_is_written_as_json_writes_it(value):
    assert finish(write_json(value)) == json.dumps(value)
