"""A server, in a process of its own, under requests that nobody means well with.

It must not crash nor grow, must answer each with a code it documents, and every thousand a good one rightly.
`make test-hostile` sends 20,000; a variable of the environment says how many are sent here.
"""

import http.client
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from tritonclient.grpc import service_pb2 as pb

from prefrm.client import connect
from prefrm.media import decode
from prefrm.winmatrix import FakeScorer, Group
from serving.server import Addresses
from tests.serving.hostile_bodies import INFER, RAW, HostileRequest, hostile_requests
from tests.serving.hostile_images import ALL, PICTURE, encoded, mutated
from tests.serving.hostile_messages import SERVICE, infer_message, message

REQUESTS = int(os.environ.get("PREFRM_HOSTILE_REQUESTS", "1000"))
# Of what is sent: to the JSON score API and its neighbours, what the OpenAPI document describes and what it
# forbids; to the Open Inference Protocol, bodies over HTTP and messages over gRPC.
SHARES = {"openapi": 0.1, "http": 0.4, "grpc": 0.5}
# Of the messages of gRPC, those that are well formed but for an image.
IMAGES = 0.3
GROWTH_MB = 32.0
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

# 5xx are answered where a part of the protocol is not there, and where the client's own timeout has passed.
STATUSES = {200, 400, 404, 405, 413, 501, 504}
CODES = {
    "OK",
    "INVALID_ARGUMENT",
    "OUT_OF_RANGE",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
}

PROGRAM = """
import sys
from pathlib import Path
from prefrm.winmatrix import FakeScorer
from serving.announcing import announce
from serving.models import ModelInfo
from serving.limits import Limits
from serving.running import run
from serving.server import JudgeServer
from tests.serving.test_malformed import brightness

limits = Limits(group_size=8, request_groups=4, request_bytes=32 * 2**20)
server = JudgeServer(FakeScorer(brightness), ModelInfo(name="judge"), limits=limits)
run(server, on_ready=lambda addresses: announce(addresses, Path(sys.argv[1])))
"""


def brightness(prompt: str, candidate: bytes | str) -> float:
    """Of a text, its length."""
    if isinstance(candidate, str):
        return len(candidate) / 100
    return float(np.asarray(decode(candidate)).mean()) / 50 + len(prompt) / 10


GOOD = [
    Group(prompt="a red cube", candidates=(encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG"), None)),
    Group(
        prompt="zwei Äpfel",
        candidates=(encoded(PICTURE, "WEBP"), encoded(PICTURE, "PNG"), encoded(PICTURE, "PNG")),
    ),
    Group(prompt="who?", candidates=("Äpfel", "nobody"), context=(encoded(PICTURE, "PNG"),), criterion="hue"),
]


class Server:
    """The process, what it answered so far, and its memory in megabytes after each thousand requests."""

    def __init__(self, process: subprocess.Popen, addresses: Addresses, log: Path) -> None:
        self.addresses = addresses
        # Of all clients, this one minds least what it sends.
        self.http = http.client.HTTPConnection(addresses.http, timeout=60)
        self.channel = grpc.insecure_channel(addresses.grpc, [("grpc.max_receive_message_length", -1)])
        self.answers: Counter[str] = Counter()
        self.sent = 0
        self.memory: list[float] = []
        self._process, self._log = process, log

    def count(self, answer: str) -> None:
        self.answers[answer] += 1
        self.sent += 1
        if self.sent % 1000 == 0:
            self.check()

    def check(self) -> None:
        """It lives, did not grow, logged no failure, and answers good requests over both wires exactly."""
        assert self._process.poll() is None, "the server crashed"
        expected = FakeScorer(brightness).score(GOOD)
        for url in (self.addresses.grpc_url, self.addresses.http_url):
            with connect(url, deadline=60) as judge:
                for got, wanted in zip(judge.score(GOOD), expected, strict=True):
                    assert np.array_equal(got.p, wanted.p, equal_nan=True)
                    assert np.array_equal(got.valid, wanted.valid)
        log = self._log.read_text(errors="replace")
        assert "Traceback" not in log and "ERROR" not in log, log[-3000:]
        self.memory.append(psutil.Process(self._process.pid).memory_info().rss / 2**20)
        assert self.memory[-1] - self.memory[0] < GROWTH_MB, self.memory

    def post(self, request: HostileRequest) -> tuple[int, bytes]:
        """The status and the body of an HTTP request's answer."""
        self.http.request(request.method, request.path, request.body, request.headers)
        response = self.http.getresponse()
        return response.status, response.read()

    def call(self, method: str, data: bytes) -> str:
        """The code that a gRPC call with these bytes ends in."""
        try:
            if method.endswith("StreamInfer"):
                call = self.channel.stream_stream(method, None, None)
                list(call(iter([data]), timeout=60))
            else:
                self.channel.unary_unary(method, None, None)(data, timeout=60)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


@pytest.fixture(scope="module")
def server(tmp_path_factory, until):
    folder = tmp_path_factory.mktemp("malformed")
    file, log = folder / "address.json", folder / "log"
    root = Path(__file__).parents[2]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file)], cwd=root, stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        try:
            until(file.exists)
            server = Server(process, Addresses(**json.loads(file.read_text())), log)
            # What is loaded at first use is loaded before the memory is noted.
            rng = random.Random("warm up")
            for make in ALL.values():
                send_image(server, make())
            for _ in range(100):
                server.call(*message(rng, GOOD[0].candidates[0]))
            for body in RAW:
                for encoding in ("identity", "gzip", "deflate"):
                    headers = {"Content-Encoding": encoding}
                    server.post(HostileRequest(method="POST", path=INFER, headers=headers, body=body))
            server.check()
            yield server
            print(f"\n{server.sent} requests: {dict(sorted(server.answers.items()))}")
            print(f"memory in MB: {', '.join(f'{megabytes:.0f}' for megabytes in server.memory)}")
            server.http.close()
            server.channel.close()
        finally:
            process.kill()


def send_image(server: Server, image: bytes) -> pb.ModelInferResponse:
    good = GOOD[0].candidates[0]
    request = infer_message([b"a red cube"], [[good, image, good]])
    response = server.channel.unary_unary(SERVICE + "ModelInfer", None, None)(request.SerializeToString())
    return pb.ModelInferResponse.FromString(response)


@pytest.mark.slow
def test_http_answers_every_body_with_a_status_it_documents(server: Server) -> None:
    @settings(SETTINGS, max_examples=max(1, int(REQUESTS * SHARES["http"])))
    @given(request=hostile_requests())
    def every_body(request: HostileRequest) -> None:
        status, body = server.post(request)
        assert status in STATUSES, (status, body[:500])
        if status != 200 and request.method != "HEAD":
            assert list(json.loads(body)) == ["error"]
        server.count(f"HTTP {status}")

    every_body()
    server.check()


@pytest.mark.slow
def test_http_answers_as_its_openapi_document_says(server: Server) -> None:
    base = f"http://{server.addresses.http}"
    schema = openapi.from_url(f"{base}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    # Two routes take groups of their own; most of the others only read.
    taking = [schema[path]["POST"] for path in ("/v1/score", "/v1/chat/completions")]
    operations += taking * (len(operations) // 2)
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    @settings(SETTINGS, max_examples=max(1, int(REQUESTS * SHARES["openapi"])))
    @given(case=st.sampled_from(operations).flatmap(lambda operation: any_case(operation)))
    def every_case(case: Case) -> None:
        response = case.call(base_url=base)
        assert response.status_code in STATUSES, (response.status_code, response.text[:500])
        case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])
        server.count(f"OpenAPI {response.status_code}")

    def any_case(operation: APIOperation) -> st.SearchStrategy[Case]:
        return st.sampled_from(modes).flatmap(lambda mode: operation.as_strategy(generation_mode=mode))

    every_case()
    server.check()


def test_grpc_answers_every_message_with_a_code_it_documents(server: Server) -> None:
    rng, image = random.Random(1), GOOD[0].candidates[0]
    wholes = [encoded(PICTURE, format) for format in ("PNG", "JPEG", "WEBP")]
    for _ in range(int(REQUESTS * SHARES["grpc"])):
        if rng.random() < IMAGES:
            server.count(f"image {judged_or_refused(send_image(server, mutated(rng.choice(wholes), rng)))}")
            continue
        method, data = message(rng, image)
        code = server.call(method, data)
        assert code in CODES, (code, method, data[:500])
        server.count(f"gRPC {code}")
    server.check()


def judged_or_refused(answer: pb.ModelInferResponse) -> str:
    """What came of the second of three candidates; an unreadable one costs the others nothing."""
    outputs = dict(zip((o.name for o in answer.outputs), answer.raw_output_contents, strict=True))
    judged = np.frombuffer(outputs["valid"], bool).reshape(3, 3)
    assert judged[0, 2] and judged[2, 0]
    assert judged[0, 1] == (len(outputs["error"]) == 12)
    return "judged" if judged[0, 1] else "refused"
