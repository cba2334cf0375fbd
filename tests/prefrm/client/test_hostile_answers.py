"""Answers of servers that mean harm: each is a typed error soon, at a bounded cost of memory.

A server over a plain socket writes the HTTP answers byte by byte, and a gRPC server without serializers the
messages. Each goes over the blocking scorer; `test_scorers.py` shows that both kinds share the core.
"""

import asyncio
import contextlib
import gzip
import json
import resource
import struct
import threading
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from prefrm.client import connect, connect_async
from prefrm.errors import ProtocolError, RequestError, ScoringError
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.test_remote_scorers import WAYS

SECONDS = 5.0
MEMORY_BYTES = 150 * 2**20
ESCAPES = "\x1b[31mred\x9b31m \u202egnp.exe\u2066\r\nsecond line\x00 "
CONFIG = {"parameters": {"bundle": {"string_value": "b" * 64}}}


def outputs(**changes):
    """The five outputs of a group of two, as (datatype, shape, content) by name; None leaves one out."""
    zeros, ones = np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), bool)
    good = {
        "win_matrix": ("FP32", [1, 2, 2], (zeros + 0.5).tobytes()),
        "order_gap": ("FP32", [1, 2, 2], zeros.tobytes()),
        "tie": ("FP32", [1, 2, 2], zeros.tobytes()),
        "valid": ("BOOL", [1, 2, 2], ones.tobytes()),
        "error": ("BYTES", [1, 2], bytes(8)),
    }
    return {name: output for name, output in (good | changes).items() if output is not None}


def floats(*values):
    return np.array(values, np.float32).tobytes()


SHAPE, NAN = [1, 2, 2], float("nan")
TENSORS = {
    "none": {},
    "missing": outputs(tie=None),
    "unasked": outputs(win_rate=("FP32", [1, 2], floats(0.5, 0.5))),
    "other name": outputs(tie=None, ties=("FP32", SHAPE, bytes(16))),
    "datatype": outputs(win_matrix=("FP64", SHAPE, bytes(32))),
    "datatype of another size": outputs(win_matrix=("FP16", SHAPE, bytes(8))),
    "datatype unknown": outputs(tie=("\x1b[2J", SHAPE, bytes(16))),
    "count": outputs(win_matrix=("FP32", [2, 2, 2], bytes(32))),
    "size": outputs(win_matrix=("FP32", [1, 3, 3], bytes(36))),
    "rank": outputs(win_matrix=("FP32", [1, 4], bytes(16))),
    "no shape": outputs(win_matrix=("FP32", [], bytes(16))),
    "negative shape": outputs(win_matrix=("FP32", [1, -2, -2], bytes(16))),
    "huge shape": outputs(win_matrix=("FP32", [2**62, 2**62, 2], bytes(16))),
    "short": outputs(win_matrix=("FP32", SHAPE, bytes(15))),
    "long": outputs(win_matrix=("FP32", SHAPE, bytes(17))),
    "empty": outputs(win_matrix=("FP32", SHAPE, b"")),
    "bool of 255": outputs(valid=("BOOL", SHAPE, b"\xff\x01\x01\xff")),
    "sum": outputs(win_matrix=("FP32", SHAPE, floats(0.5, 0.7, 0.7, 0.5))),
    "sum by rounding": outputs(
        win_matrix=("FP32", SHAPE, floats(0.5, np.nextafter(np.float32(0.75), np.float32(1)), 0.25, 0.5))
    ),
    "range": outputs(win_matrix=("FP32", SHAPE, floats(0.5, 2, -1, 0.5))),
    "infinite": outputs(win_matrix=("FP32", SHAPE, floats(0.5, np.inf, -np.inf, 0.5))),
    "nan": outputs(win_matrix=("FP32", SHAPE, floats(0.5, NAN, NAN, 0.5))),
    "nan on one side": outputs(win_matrix=("FP32", SHAPE, floats(0.5, NAN, 0.5, 0.5))),
    "diagonal": outputs(win_matrix=("FP32", SHAPE, floats(1, 0.5, 0.5, 0))),
    "valid on one side": outputs(valid=("BOOL", SHAPE, b"\x01\x01\x00\x01")),
    "invalid diagonal": outputs(valid=("BOOL", SHAPE, b"\x00\x01\x01\x01")),
    "tie of 2": outputs(tie=("FP32", SHAPE, floats(0, 2, 2, 0))),
    "tie on one side": outputs(tie=("FP32", SHAPE, floats(0, 1, 0, 0))),
    "gap of -1": outputs(order_gap=("FP32", SHAPE, floats(0, -1, -1, 0))),
    "gap on the diagonal": outputs(order_gap=("FP32", SHAPE, floats(1, 0, 0, 1))),
    "error without cause": outputs(error=("BYTES", [1, 2], struct.pack("<I", 4) + b"gone" + bytes(4))),
    "element beyond the end": outputs(error=("BYTES", [1, 2], b"\xff\xff\xff\xff" + bytes(4))),
    "too few elements": outputs(error=("BYTES", [1, 2], bytes(4))),
    "too many elements": outputs(error=("BYTES", [1, 2], bytes(400))),
    "half a length": outputs(error=("BYTES", [1, 2], bytes(7))),
    "not UTF-8": outputs(error=("BYTES", [1, 2], (struct.pack("<I", 1) + b"\xff") * 2)),
}


def http_answer(tensors, *, request_id, model="judge", edit=lambda header: header, length=None, **headers):
    """A whole HTTP answer with these tensors in the protocol's binary form."""
    header = {"model_name": model, "model_version": "1", "id": request_id, "outputs": []}
    for name, (datatype, shape, content) in tensors.items():
        size = {"binary_data_size": len(content)}
        header["outputs"].append({"name": name, "datatype": datatype, "shape": shape, "parameters": size})
    text = json.dumps(edit(header)).encode()
    content = text + b"".join(content for _, _, content in tensors.values())
    named = {"Inference-Header-Content-Length": len(text) if length is None else length} | headers
    return http(content, **named)


def http(content, status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def changed(path, value):
    """An edit of an answer's JSON header: a value at a path of keys."""

    def edit(header):
        *way, last = path
        place = header
        for key in way:
            place = place[key]
        place[last] = value
        return header

    return edit


FIRST = ("outputs", 0)
SIZE_OF_FIRST = (*FIRST, "parameters", "binary_data_size")
HEADERS = {
    "a list": lambda header: [],
    "a number": lambda header: 3,
    "null": lambda header: None,
    "another model": changed(["model_name"], "other\x1b[2J"),
    "no model": changed(["model_name"], None),
    "another id": changed(["id"], "1"),
    "outputs a number": changed(["outputs"], 3),
    "outputs null": changed(["outputs"], None),
    "outputs a mapping": changed(["outputs"], {"win_matrix": 1}),
    "outputs of numbers": changed(["outputs"], [1, 2, 3]),
    "outputs nested": changed(["outputs"], [[[[[]]]]]),
    "an output twice": lambda header: header | {"outputs": header["outputs"] + header["outputs"][:1]},
    "a million outputs": changed(["outputs"], [0] * 7000),
    "size negative": changed(SIZE_OF_FIRST, -16),
    "size huge": changed(SIZE_OF_FIRST, 10**30),
    "size a float": changed(SIZE_OF_FIRST, 16.0),
    "size a text": changed(SIZE_OF_FIRST, "16"),
    "size true": changed(SIZE_OF_FIRST, True),
    "size null": changed(SIZE_OF_FIRST, None),
    "no parameters": changed([*FIRST, "parameters"], None),
    "data in JSON": changed(
        FIRST, {"name": "win_matrix", "datatype": "FP32", "shape": SHAPE, "data": [0.5] * 4}
    ),
    "name a list": changed([*FIRST, "name"], ["win_matrix"]),
    "name a mapping": changed([*FIRST, "name"], {}),
    "datatype a list": changed([*FIRST, "datatype"], ["FP32"]),
    "shape a text": changed([*FIRST, "shape"], "122"),
    "shape a number": changed([*FIRST, "shape"], 4),
    "shape nested": changed([*FIRST, "shape"], [[1], [2], [2]]),
    "shape of floats": changed([*FIRST, "shape"], [1.5, 2, 2]),
}
HTTP = {
    "nothing": b"",
    "garbage": b"\x00\xff" * 5000,
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/9.9": b"HTTP/9.9 200 OK\r\n\r\n",
    "status text": b"HTTP/1.1 two hundred\r\n\r\n",
    "status 1000000": http(b"", "1000000 OK"),
    "giant header": http(b"", Name="x" * 10**6),
    "giant status line": b"HTTP/1.1 200 " + b"O" * 10**6,
    "ten thousand headers": http(b"", **{f"Name{n}": "x" for n in range(10_000)}),
    "no JSON": http(b"<html>"),
    "empty": http(b""),
    "nested 100,000 deep": http(b"[" * 20_000),
    "objects nested deep": http(b'{"a":' * 5000),
    "huge integer": http(b'{"outputs": ' + b"9" * 20_000 + b"}"),
    "not UTF-8": http(b'{"outputs": "\xff\xfe"}'),
    "cut short": http(b"{}", **{"Content-Length": 1000}),
    "endless": http(b"{}", **{"Content-Length": 10**15}) + b" " * 2**20,
    "content length negative": http(b"{}", **{"Content-Length": -1}),
    "content length text": http(b"{}", **{"Content-Length": "two"}),
    "two megabytes": http(b" " * 2**21),
    "chunk of no size": http(b"zz\r\n{}\r\n0\r\n\r\n", **{"Transfer-Encoding": "chunked"}),
    "chunk of 2^64": http(b"FFFFFFFFFFFFFFFFF\r\n{}", **{"Transfer-Encoding": "chunked"}),
    "gzip bomb": http(gzip.compress(bytes(10**8)), **{"Content-Encoding": "gzip"}),
    "deflate bomb": http(zlib.compress(bytes(10**8)), **{"Content-Encoding": "deflate"}),
    "unknown encoding": http(b"{}", **{"Content-Encoding": "br, gzip, zstd"}),
    "error with escapes": http(json.dumps({"error": ESCAPES * 5000}).encode(), "400 Bad"),
    "error nested deep": http(b"[" * 100_000, "500 Failed"),
    "error of another type": http(b'{"error": {"error": []}}', "404 Not Found"),
    "error of two megabytes": http(b"x" * 2**21, "500 Failed"),
    "full for ever": http(b"", "429 Full", **{"Retry-After": "1" + "0" * 30}),
    "upgrade": http(b"", "101 Switching Protocols", Upgrade="websocket", Connection="Upgrade"),
    "redirect": http(b"", "307 Elsewhere", Location=f"http://127.0.0.1:1/{'x' * 3000}"),
    "redirect without place": http(b"", "302 Elsewhere"),
    "redirect in a header that is cut": b"HTTP/1.1 302 x\r\nLocation: http://",
    **{
        f"header length {length!r}": lambda request_id, length=length: http_answer(
            outputs(), request_id=request_id, length=length
        )
        for length in ("-1", "0", "1", "99999999", "9" * 5000, "two", "1e3", "")
    },
    **{
        f"header: {name}": lambda request_id, edit=edit: http_answer(
            outputs(), request_id=request_id, edit=edit
        )
        for name, edit in HEADERS.items()
    },
    **{
        f"tensors: {name}": lambda request_id, tensors=tensors: http_answer(tensors, request_id=request_id)
        for name, tensors in TENSORS.items()
    },
}


class RawHttp:
    """A server that answers each inference with given bytes and closes the connection."""

    def __init__(self):
        self.answer, self.config, self.drip = b"", http(json.dumps(CONFIG).encode()), None

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await self.head(reader)
            while head.startswith("get"):
                writer.write(self.config)
                head = await self.head(reader)
            body = await reader.readexactly(self.number(head, "content-length"))
            request = json.loads(body[: self.number(head, "inference-header-content-length")])
            writer.write(self.answer(request["id"]) if callable(self.answer) else self.answer)
            await writer.drain()
            while self.drip is not None:
                writer.write(self.drip)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    async def head(self, reader):
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower()

    def number(self, head, name):
        return int(head.partition(f"\n{name}: ")[2].split()[0])


@pytest.fixture(scope="module")
def raw():
    """Such a server on a thread, with its `address`."""
    made, ready = RawHttp(), Future()

    async def main():
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        ready.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    port, stop = ready.result(10)
    made.url = f"http://127.0.0.1:{port}/judge"
    yield made
    stop()
    thread.join()


@pytest.fixture(autouse=True)
def plain(raw):
    raw.config, raw.drip = http(json.dumps(CONFIG).encode()), None


@contextlib.contextmanager
def bounded():
    """Takes at most so many seconds and bytes of memory, and raises a printable error of prefrm."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ScoringError) as caught:
        yield caught
    assert time.monotonic() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", HTTP)
def test_http(raw, pair, name):
    raw.answer = HTTP[name]
    with connect(raw.url, unavailable_timeout=0) as judge, bounded() as caught:
        judge.score([pair])
    assert raw.url in str(caught.value)


def test_a_good_answer_of_the_same_server_is_a_matrix(raw, pair):
    raw.answer = lambda request_id: http_answer(outputs(), request_id=request_id)
    with connect(raw.url) as judge:
        assert judge.score([pair])[0].p[0, 1] == 0.5


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b""),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (http(b"", **{"Content-Length": 500}), b" "),
        (http(b"", **{"Transfer-Encoding": "chunked"}), b"1\r\n \r\n"),
        (http(b"", "500 Failed", **{"Content-Length": 500}), b" "),
    ],
)
def test_an_answer_that_drips_ends_at_the_deadline(raw, pair, start, drip):
    raw.answer, raw.drip = start, drip
    with connect(raw.url, unavailable_timeout=0, deadline=0.15) as judge, bounded():
        judge.score([pair])


@pytest.mark.parametrize(
    "config",
    [
        http(b"[" * 500_000),
        http(b" " * 2**21),
        http(gzip.compress(bytes(10**8)), **{"Content-Encoding": "gzip"}),
        http(b"", "301 Elsewhere", Location="http://127.0.0.1:1/"),
    ],
)
def test_a_configuration_over_http(raw, pair, config):
    raw.config = config
    with connect(raw.url, unavailable_timeout=0) as judge, bounded():
        judge.score([pair])


GRPC = {
    "garbage": b"\xff" * 1000,
    "nothing": b"",
    "cut short": pb.ModelInferResponse(model_name="judge", id="x" * 50).SerializeToString()[:-1],
    "groups nested deep": b"\x0b" * 100_000,
    "forty megabytes": bytes(40 * 2**20),
    "four megabytes": pb.ModelInferResponse(model_name="judge" * 10**6).SerializeToString(),
    "another model": lambda request_id: grpc_answer(outputs(), request_id=request_id, model="other"),
    "another id": lambda request_id: grpc_answer(outputs(), request_id="1"),
    "typed contents": lambda request_id: grpc_answer(outputs(), request_id=request_id, raw=False),
    "more contents": lambda request_id: grpc_answer(outputs(), request_id=request_id, extra=[b""]),
    "twice": lambda request_id: grpc_answer(outputs(), request_id=request_id, again=outputs()),
    **{
        f"tensors: {name}": lambda request_id, tensors=tensors: grpc_answer(tensors, request_id=request_id)
        for name, tensors in TENSORS.items()
    },
}


def grpc_answer(tensors, *, request_id, model="judge", raw=True, extra=(), again=()):
    answer = pb.ModelInferResponse(model_name=model, id=request_id)
    for name in [*tensors, *again]:
        datatype, shape, content = tensors[name]
        shape = [min(extent, 2**62) for extent in shape]
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            answer.raw_output_contents.append(content)
    answer.raw_output_contents.extend(extra)
    return answer.SerializeToString()


class RawGrpc(grpc.GenericRpcHandler):
    """Answers each inference with given bytes, or ends it in a given status with trailers."""

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.config if "Config" in details.method else self.infer)

    def infer(self, request, context):
        answer = self.answer
        if isinstance(answer, tuple):
            code, message, trailers = answer
            context.set_trailing_metadata(trailers)
            context.abort(code, message)
        return answer(pb.ModelInferRequest.FromString(request).id) if callable(answer) else answer

    def config(self, request, context):
        answer = pb.ModelConfigResponse()
        answer.config.parameters["bundle"].string_value = "b" * 64
        return self.named or answer.SerializeToString()


@contextlib.contextmanager
def raw_grpc(answer=b"", named=b"", **options):
    handler = RawGrpc()
    handler.answer, handler.named = answer, named
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)], **options)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    handler.url = f"grpc://127.0.0.1:{port}/judge"
    try:
        yield handler
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def messages():
    with raw_grpc() as handler:
        yield handler


@pytest.mark.parametrize("name", GRPC)
def test_grpc(messages, pair, name):
    messages.answer = GRPC[name]
    with connect(messages.url, unavailable_timeout=0) as judge, bounded() as caught:
        judge.score([pair])
    assert messages.url in str(caught.value)
    assert type(caught.value) is ProtocolError


@pytest.mark.parametrize(
    ("code", "message", "trailers"),
    [
        ("INTERNAL", ESCAPES, ()),
        ("INVALID_ARGUMENT", ESCAPES * 200, ()),
        ("UNAVAILABLE", ESCAPES, (("grpc-retry-pushback-ms", "1" + "0" * 30),)),
        ("RESOURCE_EXHAUSTED", "", (("grpc-retry-pushback-ms", "9" * 5000),)),
        ("RESOURCE_EXHAUSTED", "", (("grpc-retry-pushback-ms", "--5"),)),
        ("RESOURCE_EXHAUSTED", "", (("grpc-retry-pushback-ms", "-" + "9" * 5000),)),
        ("OK", "", ()),
        ("UNKNOWN", "", (("x", "y" * 20_000),)),
        ("DATA_LOSS", "x" * 5000, (("x-bin", b"\x1b\xff"),)),
    ],
)
def test_grpc_trailers(messages, pair, code, message, trailers):
    if code == "OK":
        messages.answer = lambda request_id: b""
    else:
        messages.answer = (grpc.StatusCode[code], message, trailers)
    with connect(messages.url, unavailable_timeout=0) as judge, bounded():
        judge.score([pair])


def test_a_grpc_message_that_inflates_is_not(pair):
    # The server, too, has the message in this process's memory.
    with (
        raw_grpc(bytes(5 * 10**7), compression=grpc.Compression.Gzip) as handler,
        connect(handler.url, unavailable_timeout=0) as judge,
        bounded() as caught,
    ):
        judge.score([pair])
    assert "larger than max" in str(caught.value)


@pytest.mark.parametrize("way", ["http", "http async"])
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed(ask, way, raw, pair, status):
    with fake("http") as other:
        raw.answer = http(b"", status, Location=other.url.replace("judge", "v2/models/judge/infer"))
        with pytest.raises(RequestError, match=rf"redirects to {other.url.removesuffix('judge')}"):
            ask(way, raw.url, [pair])
        assert other.seen == []


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_what_a_server_says_is_printable(self, ask, way, raw, pair):
        said = ESCAPES.encode()
        reasons = (struct.pack("<I", len(said)) + said) * 2
        missing = outputs(
            win_matrix=("FP32", SHAPE, floats(NAN, NAN, NAN, NAN)),
            order_gap=("FP32", SHAPE, floats(NAN, NAN, NAN, NAN)),
            tie=("FP32", SHAPE, floats(NAN, NAN, NAN, NAN)),
            valid=("BOOL", SHAPE, bytes(4)),
            error=("BYTES", [1, 2], reasons),
        )
        raw.answer = lambda request_id: http_answer(missing, request_id=request_id)
        with raw_grpc(lambda request_id: grpc_answer(missing, request_id=request_id)) as handler:
            (matrix,) = ask(way, handler.url if way.startswith("grpc") else raw.url, [pair])
        assert matrix.errors == ("[31mred31m gnp.exe second line",) * 2

    def test_a_bundles_name_is_printable(self, way, raw):
        config = pb.ModelConfigResponse()
        config.config.parameters["bundle"].string_value = ESCAPES
        named = json.dumps({"parameters": {"bundle": {"string_value": ESCAPES}}}).encode()
        raw.config = http(named)

        async def identity(url):
            async with connect_async(url) as judge:
                return await judge.identity()

        with raw_grpc(named=config.SerializeToString()) as handler:
            url = handler.url if way.startswith("grpc") else raw.url
            if way.endswith("async"):
                found = asyncio.run(identity(url))
            else:
                with connect(url) as judge:
                    found = judge.identity()
        assert found == "[31mred31m gnp.exe second line"
