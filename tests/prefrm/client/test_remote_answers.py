"""Servers that answer with something else: each answer becomes an error, and never a number."""

import contextlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from prefrm.client import connect
from prefrm.errors import (
    DeadlineError,
    OverloadedError,
    ProtocolError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.winmatrix import Group


@contextlib.contextmanager
def http_server_that_says(status: int, body: bytes, headers: dict[str, str], before=lambda: None):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            before()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def handle(self):
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/judge"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("way", ["http", "http async"])
@pytest.mark.parametrize(
    ("status", "body", "headers", "error"),
    [
        (200, b"", {}, ProtocolError),
        (200, b"<html>a proxy's page</html>", {}, ProtocolError),
        (200, b"[]", {}, ProtocolError),
        (200, b'{"outputs": []}', {}, ProtocolError),
        (200, b'{"outputs": 3}', {}, ProtocolError),
        (200, b'{"outputs": [{"name": "win_matrix"}]}', {}, ProtocolError),
        (200, b"{}", {"Inference-Header-Content-Length": "9"}, ProtocolError),
        (200, b"{}", {"Content-Encoding": "gzip"}, ProtocolError),
        (502, b"<html>bad gateway</html>", {}, ServerUnavailableError),
        (503, b'{"error": "loading"}', {}, ServerUnavailableError),
        (504, b'{"error": "too late"}', {}, DeadlineError),
        (408, b'{"error": "the body did not come"}', {}, DeadlineError),
        (429, b'{"error": "full"}', {}, OverloadedError),
        (401, b'{"error": "who are you"}', {}, RequestError),
        (500, b"", {}, ScoringError),
    ],
)
def test_whatever_an_http_server_says_becomes_an_error_and_never_a_number(
    ask, way, status, body, headers, error, pair
):
    with (
        http_server_that_says(status, body, headers) as url,
        pytest.raises(error) as caught,
    ):
        ask(way, url, [pair], deadline=0.5, unavailable_timeout=0)
    assert type(caught.value) is error
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_attempt_cut_short_while_sending_leaves_a_usable_scorer(pair):
    seen, hold = [], threading.Event()

    def linger() -> None:
        seen.append(1)
        if len(seen) == 1:
            hold.wait(20)

    # Larger than the socket buffers, so that the first attempt ends in the middle of sending.
    big = Group(prompt="p", candidates=(bytes(16_000_000), b"x"))
    with (
        http_server_that_says(400, b'{"error": "read it all"}', {}, before=linger) as url,
        connect(url, deadline=1.5) as judge,
    ):
        with pytest.raises(DeadlineError):
            judge.score([big])
        hold.set()
        with pytest.raises(RequestError, match="read it all"):
            judge.score([pair])


def answer(p=((0.5, 0.5), (0.5, 0.5)), shape=(1, 2, 2), raw=True, dtype=np.float32):
    """A gRPC answer whose matrices are well-formed but for what the arguments say."""
    ok = np.zeros(shape, np.float32)
    response = pb.ModelInferResponse(model_name="judge", model_version="1")
    for name, datatype, extents, content in (
        ("win_matrix", "FP32", shape, np.array(p, dtype).tobytes()),
        ("order_gap", "FP32", shape, ok.tobytes()),
        ("tie", "FP32", shape, ok.tobytes()),
        ("valid", "BOOL", shape, np.ones(shape, bool).tobytes()),
        ("error", "BYTES", shape[:2], b"\x00\x00\x00\x00" * (shape[0] * shape[1])),
    ):
        response.outputs.add(name=name, datatype=datatype, shape=extents)
        if raw:
            response.raw_output_contents.append(content)
    return response


@pytest.fixture
def grpc_server_that_says():
    """Starts a gRPC server that gives one answer, or ends every call in one status."""
    servers = []

    def start(response) -> str:
        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ModelInfer(self, request, context):
                if isinstance(response, grpc.StatusCode):
                    context.abort(response, "the server's\nreason")
                response.id = request.id
                return response

        server = grpc.server(ThreadPoolExecutor(2))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"grpc://127.0.0.1:{port}/judge"

    yield start
    for server in servers:
        server.stop(None).wait()


@pytest.mark.parametrize("way", ["grpc", "grpc async"])
class TestGrpcAnswers:
    def test_a_well_formed_one_is_a_matrix(self, ask, way, grpc_server_that_says, pair):
        (matrix,) = ask(way, grpc_server_that_says(answer()), [pair])
        assert matrix.p[0, 1] == 0.5

    @pytest.mark.parametrize(
        "response",
        [
            answer(p=((0.5, 0.7), (0.7, 0.5))),
            answer(p=((0.5, np.nan), (np.nan, 0.5))),
            answer(p=((0.5, 2.0), (-1.0, 0.5))),
            answer(p=(0.5, 0.5)),
            answer(dtype=np.float64),
            answer(p=np.full((1, 3, 3), 0.5), shape=(1, 3, 3)),
            answer(p=np.full((2, 2, 2), 0.5), shape=(2, 2, 2)),
            answer(raw=False),
            pb.ModelInferResponse(),
        ],
        ids=["sum", "nan", "range", "short", "long", "size", "count", "typed", "empty"],
    )
    def test_a_malformed_one_is_an_error(self, ask, way, grpc_server_that_says, response, pair):
        url = grpc_server_that_says(response)
        with pytest.raises(ProtocolError, match=url):
            ask(way, url, [pair])

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, RequestError),
            (grpc.StatusCode.UNAUTHENTICATED, RequestError),
            (grpc.StatusCode.UNIMPLEMENTED, RequestError),
            (grpc.StatusCode.UNAVAILABLE, ServerUnavailableError),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
            (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineError),
            (grpc.StatusCode.INTERNAL, ScoringError),
            (grpc.StatusCode.DATA_LOSS, ScoringError),
        ],
    )
    def test_a_status_is_an_error(self, ask, way, grpc_server_that_says, status, error, pair):
        url = grpc_server_that_says(status)
        with pytest.raises(error) as caught:
            ask(way, url, [pair], deadline=0.5, unavailable_timeout=0)
        assert type(caught.value) is error
        assert url in str(caught.value)
        assert "\n" not in str(caught.value)


def test_not_a_grpc_server(ask, pair, served):
    with pytest.raises(ScoringError):
        ask("grpc", f"grpc://{served.http}/judge", [pair], unavailable_timeout=0, deadline=5)


@pytest.mark.parametrize("way", ["http", "http async"])
def test_the_grpc_port_asked_over_http_is_guessed(ask, way, pair, served):
    with pytest.raises(ServerUnavailableError, match=r"Expected HTTP/.*; is this the gRPC port\?$"):
        ask(way, f"http://{served.grpc}/judge", [pair], unavailable_timeout=0)


@pytest.mark.parametrize("way", ["grpc", "http", "grpc async", "http async"])
def test_a_port_without_tls_is_guessed(ask, way, pair, served):
    wire = way.split()[0]
    with pytest.raises(ServerUnavailableError, match=r"WRONG_VERSION_NUMBER.*; is this port encrypted\?$"):
        ask(way, f"{wire}s://{getattr(served, wire)}/judge", [pair], unavailable_timeout=0)
