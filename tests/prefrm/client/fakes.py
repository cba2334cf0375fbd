"""Small servers of both wires that note what they are asked, and answer or refuse as a test says."""

import contextlib
import http.server
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

HTTP_STATUS = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429, "UNAUTHENTICATED": 401, "INTERNAL": 500}
HTTP_STATUS |= {"DEADLINE_EXCEEDED": 504, "TIMEOUT": 408, "TOO_EARLY": 425}
SHAPE = [1, 2, 2]
OUTPUTS = [
    ("win_matrix", "FP32", SHAPE, [0.5] * 4),
    ("order_gap", "FP32", SHAPE, [0.0] * 4),
    ("tie", "FP32", SHAPE, [0.0] * 4),
    ("valid", "BOOL", SHAPE, [True] * 4),
    ("error", "BYTES", SHAPE[:2], ["", ""]),
]


@dataclass(frozen=True)
class Seen:
    """One request: when it came, which it was, its headers, its deadline and its `timeout` parameter."""

    at: float
    infers: bool
    headers: dict[str, str]
    left: float | None
    timeout: int | None


@dataclass
class Fake:
    """What a server says: of a code and headers a refusal, of None the matrix of a pair of equals.

    `refusals` are said first, one for each inference; then `always`.
    """

    refusals: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    always: tuple[str, dict[str, str]] | None = None
    bundle: str = "b" * 64
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    @property
    def inferences(self) -> list[Seen]:
        return [one for one in self.seen if one.infers]

    def note(self, *, infers, headers, left=None, timeout=None):
        self.seen.append(
            Seen(at=time.monotonic(), infers=infers, headers=headers, left=left, timeout=timeout)
        )
        if not infers:
            return None
        return self.refusals.pop(0) if self.refusals else self.always


@contextlib.contextmanager
def fake(wire, **settings):
    """A `Fake` that listens on loopback."""
    made = Fake(**settings)
    with (grpc_server if wire == "grpc" else http_server)(made) as address:
        made.url = f"{wire}://{address}/judge"
        yield made


@contextlib.contextmanager
def grpc_server(made):
    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelConfig(self, request, context):
            made.note(infers=False, headers=dict(context.invocation_metadata()))
            answer = pb.ModelConfigResponse()
            answer.config.parameters["bundle"].string_value = made.bundle
            return answer

        def ModelInfer(self, request, context):
            refusal = made.note(
                infers=True,
                headers=dict(context.invocation_metadata()),
                left=context.time_remaining(),
                timeout=request.parameters["timeout"].int64_param,
            )
            if refusal is None:
                return grpc_matrix(request.id)
            code, headers = refusal
            context.set_trailing_metadata(tuple(headers.items()))
            context.abort(grpc.StatusCode[code], f"said {code} to {made.seen[-1].headers}")

    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def grpc_matrix(request_id=""):
    answer = pb.ModelInferResponse(model_name="judge", model_version="1", id=request_id)
    types = {"FP32": np.float32, "BOOL": np.bool_}
    for name, datatype, shape, values in OUTPUTS:
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        content = bytes(8) if datatype == "BYTES" else np.array(values, types[datatype]).tobytes()
        answer.raw_output_contents.append(content)
    return answer


@contextlib.contextmanager
def http_server(made):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            made.note(infers=False, headers=self.lower())
            self.say(200, {"parameters": {"bundle": {"string_value": made.bundle}}})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            header = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
            refusal = made.note(infers=True, headers=self.lower(), timeout=header["parameters"]["timeout"])
            if refusal is not None:
                code, headers = refusal
                self.say(HTTP_STATUS[code], {"error": f"said {code} to {self.lower()}"}, headers)
                return
            matrix = grpc_matrix()
            outputs = [
                {
                    "name": output.name,
                    "datatype": output.datatype,
                    "shape": list(output.shape),
                    "parameters": {"binary_data_size": len(content)},
                }
                for output, content in zip(matrix.outputs, matrix.raw_output_contents, strict=True)
            ]
            answer = {"model_name": "judge", "id": header["id"], "outputs": outputs}
            self.say(200, answer, binary=b"".join(matrix.raw_output_contents))

        def lower(self):
            return {name.lower(): value for name, value in self.headers.items()}

        def say(self, status, content, headers=(), binary=b""):
            text = json.dumps(content).encode()
            headers = {"Content-Length": len(text + binary), **dict(headers)}
            if binary:
                headers["Inference-Header-Content-Length"] = len(text)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(text + binary)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
