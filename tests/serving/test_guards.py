"""Tokens, TLS and mutual TLS of a real server, asked by the stock clients, prefrm's own and bare ones."""

import socket
import ssl
import threading

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from prefrm.access import reloading
from prefrm.access.tls import ServerTls
from prefrm.access.tokens import TokenFile
from prefrm.client import TLS, connect
from prefrm.errors import RequestError, ServerUnavailableError
from prefrm.winmatrix import FakeScorer, Group
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.wire import http_protocol
from tests.certificates import Authority
from tests.serving.hostile_images import PICTURE, encoded

TOKEN, OTHER = "ann-0123456789abcdef", "bob-0123456789abcdef"
GOOD = {"authorization": f"Bearer {TOKEN}"}
GROUP = Group(prompt="p", candidates=(encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG")))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(file):
    """The addresses of a server that wants a token."""
    with background(JudgeServer(scorer(), ModelInfo(name="judge"), tokens=TokenFile(file))) as addresses:
        yield addresses


def scorer() -> FakeScorer:
    return FakeScorer(lambda prompt, image: len(image) / 1000)


def tensors(client):
    inputs = [client.InferInput("prompt", [1, 1], "BYTES"), client.InferInput("images", [1, 2], "BYTES")]
    inputs[0].set_data_from_numpy(np.array([[GROUP.prompt.encode()]], dtype=object))
    inputs[1].set_data_from_numpy(np.array([GROUP.candidates], dtype=object))
    return inputs


EXPECTED = scorer().score([GROUP])[0].p


@pytest.mark.parametrize("client", [triton_grpc, triton_http])
def test_the_stock_clients_are_answered_with_a_token_only(guarded, client):
    stock = client.InferenceServerClient(guarded.grpc if client is triton_grpc else guarded.http)
    answer = stock.infer("judge", tensors(client), headers=dict(GOOD)).as_numpy("win_matrix")
    assert np.array_equal(answer[0], EXPECTED)
    assert stock.is_model_ready("judge", headers=dict(GOOD))
    for headers in (None, {"authorization": f"Bearer {OTHER}"}, {"authorization": "Basic YTpi"}):
        with pytest.raises(InferenceServerException) as caught:
            stock.infer("judge", tensors(client), headers=headers)
        assert caught.value.status() in ("401", "StatusCode.UNAUTHENTICATED")
        assert OTHER not in str(caught.value)
    stock.close()


@pytest.mark.parametrize("client", [triton_grpc, triton_http])
def test_probes_need_no_token(guarded, client):
    stock = client.InferenceServerClient(guarded.grpc if client is triton_grpc else guarded.http)
    assert stock.is_server_live() and stock.is_server_ready()
    stock.close()
    for path in ("/v2/health/live/", "/v2/health/ready/"):
        assert httpx.get(f"http://{guarded.http}{path}").status_code == 200


def test_the_health_service_of_grpc_needs_no_token(guarded):
    with grpc.insecure_channel(guarded.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def every_method():
    service = triton_grpc.service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    named = [f"/inference.GRPCInferenceService/{method.name}" for method in service.methods]
    reflection = [f"/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo" for v in ("v1", "v1alpha")]
    unknown = ["/inference.GRPCInferenceService/Nothing", "/grpc.health.v1.Health/Nothing", "/a.B/C"]
    return [*named, *reflection, *unknown]


@pytest.mark.parametrize("method", every_method())
@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
def test_all_other_methods_of_grpc_want_one(guarded, method, kind):
    with grpc.insecure_channel(guarded.grpc) as channel:
        call = getattr(channel, kind)(method, None, None)
        try:
            answer = call(b"" if kind == "unary_unary" else iter([b""]), timeout=10)
            if kind == "stream_stream":
                list(answer)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
    is_open = method.endswith(("ServerLive", "ServerReady"))
    assert (code is not grpc.StatusCode.UNAUTHENTICATED) == is_open


@pytest.mark.parametrize(
    "path",
    ["//", "/v2", "/v2/models/judge", "/v2/models/stats", "/docs/", "/docs/x.js", "/v1/score", "/nothing"]
    + [f"/v2/{path}" for path in ("health", "health/live//", "health/live/x", "/health/live")]
    + ["/v2/health/../models/stats"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_all_other_paths_of_http_want_one(guarded, path, method):
    response = httpx.request(method, f"http://{guarded.http}{path}")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "a token is required" in response.json()["error"]


def test_the_page_that_asks_for_one_wants_none(guarded):
    for path in ("/", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
        assert httpx.get(f"http://{guarded.http}{path}").status_code == 200


def test_what_is_open_on_one_port_is_not_on_another(guarded):
    for path in ("/", "/metrics", "/v2/health/live", "/docs"):
        assert httpx.get(f"http://{guarded.metrics}{path}").status_code == 401


def test_metrics_want_one_and_count_who_had_none(guarded):
    url = f"http://{guarded.metrics}/metrics"
    assert httpx.get(url).status_code == 401
    httpx.get(f"http://{guarded.http}/v2")
    text = httpx.get(url, headers=GOOD).text
    assert 'prefrm_requests_total{code="UNAUTHENTICATED",model="",wire="http"}' in text


def test_a_stream_without_a_token_is_told_so_and_can_be_stopped(guarded):
    errors, client = [], triton_grpc.InferenceServerClient(guarded.grpc)
    client.start_stream(lambda result, error: errors.append(error))
    stopping = threading.Thread(target=client.stop_stream, daemon=True)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    assert [error.status() for error in errors] == ["StatusCode.UNAUTHENTICATED"]
    client.close()


def test_the_answer_comes_before_the_body_is_sent(guarded):
    host, _, port = guarded.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v2/models/judge/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_client_that_sends_all_of_it_first_still_reads_the_answer(guarded):
    with httpx.Client(base_url=f"http://{guarded.http}") as client:
        for _ in range(2):
            assert client.post("/v2/models/judge/infer", content=bytes(20_000_000)).status_code == 401
        assert client.get("/v2", headers=GOOD).status_code == 200


def test_a_client_that_never_ends_its_body_is_let_go(guarded, monkeypatch):
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.2)
    host, _, port = guarded.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n123"
        )
        received = b""
        while piece := connection.recv(4096):
            received += piece
        assert received.startswith(b"HTTP/1.1 401")


def test_tokens_are_exchanged_while_it_serves(tmp_path, monkeypatch):
    monkeypatch.setattr(reloading, "RECHECK_S", 0.0)
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)

    def statuses(addresses):
        return [
            httpx.get(f"http://{addresses.http}/v2", headers={"authorization": f"Bearer {token}"}).status_code
            for token in (TOKEN, OTHER)
        ]

    with background(JudgeServer(scorer(), ModelInfo(name="judge"), tokens=TokenFile(path))) as addresses:
        assert statuses(addresses) == [200, 401]
        path.write_text(f"{TOKEN}\n{OTHER}\n")
        assert statuses(addresses) == [200, 200]
        path.write_text(OTHER)
        assert statuses(addresses) == [401, 200]
        path.unlink()
        assert statuses(addresses) == [401, 200]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def stock_clients(addresses, authority, pair=()):
    cert, key = pair or (None, None)
    yield (
        triton_grpc,
        triton_grpc.InferenceServerClient(
            addresses.grpc,
            ssl=True,
            root_certificates=str(authority.root),
            private_key=key and str(key),
            certificate_chain=cert and str(cert),
        ),
    )
    yield (
        triton_http,
        triton_http.InferenceServerClient(
            addresses.http, ssl=True, ssl_context_factory=lambda: authority.trusting(*pair)
        ),
    )


@pytest.mark.parametrize("mutual", [False, True])
def test_the_stock_clients_are_answered_over_tls(authority, mutual):
    cert, key = authority.issue("server")
    pair = authority.issue("trainer", "trainer") if mutual else ()
    tls = ServerTls(cert=cert, key=key, client_ca=authority.root if mutual else None)
    with background(JudgeServer(scorer(), ModelInfo(name="judge"), tls=tls)) as addresses:
        assert addresses.http_url.startswith("https://") and addresses.grpc_url.startswith("grpcs://")
        for client, stock in stock_clients(addresses, authority, pair):
            answer = stock.infer("judge", tensors(client)).as_numpy("win_matrix")
            assert np.array_equal(answer[0], EXPECTED)
            stock.close()
        metrics = httpx.get(f"https://{addresses.metrics}/metrics", verify=authority.trusting(*pair))
        assert "prefrm_requests_total" in metrics.text


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_prefrms_own_client_is_answered_with_a_token_over_mutual_tls(authority, file, wire):
    cert, key = authority.issue("server")
    mine, my_key = authority.issue("trainer", "trainer")
    tls = ServerTls(cert=cert, key=key, client_ca=authority.root)
    server = JudgeServer(scorer(), ModelInfo(name="judge"), tokens=TokenFile(file), tls=tls)
    with background(server) as addresses:
        url = getattr(addresses, f"{wire}_url")
        trust = TLS(ca=authority.root, cert=mine, key=my_key)
        with connect(url, token=TOKEN, tls=trust) as judge:
            assert np.array_equal(judge.score([GROUP])[0].p, EXPECTED)
        with connect(url, token=OTHER, tls=trust) as judge, pytest.raises(RequestError, match="not one of"):
            judge.score([GROUP])
        with (
            connect(url, token=TOKEN, tls=TLS(ca=authority.root), unavailable_timeout=0) as judge,
            pytest.raises(ServerUnavailableError),
        ):
            judge.score([GROUP])


def test_mutual_tls_turns_strangers_away_on_every_port(authority, tmp_path):
    cert, key = authority.issue("server")
    stranger = Authority(tmp_path / "strangers").issue("trainer", "trainer")
    tls = ServerTls(cert=cert, key=key, client_ca=authority.root)
    with background(JudgeServer(scorer(), ModelInfo(name="judge"), tls=tls)) as addresses:
        for pair in ((), stranger):
            for port in (addresses.http, addresses.metrics):
                with pytest.raises((httpx.TransportError, ssl.SSLError)):
                    httpx.get(f"https://{port}/v2/health/live", verify=authority.trusting(*pair))
            client = next(iter(stock_clients(addresses, authority, pair)))[1]
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.is_server_live(client_timeout=5)
            client.close()


def test_plain_connections_to_a_tls_port_are_not_answered(authority):
    cert, key = authority.issue("server")
    with background(
        JudgeServer(scorer(), ModelInfo(name="judge"), tls=ServerTls(cert=cert, key=key))
    ) as addresses:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{addresses.http}/v2/health/live")
        assert httpx.get(f"https://{addresses.http}/v2/health/live", verify=authority.trusting()).is_success
