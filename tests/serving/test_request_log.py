"""What a real server writes about the requests it gets, with nothing secret in it."""

import io
import json
import logging
from collections.abc import Sequence

import grpc
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prefrm.access.tokens import TokenFile
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.models import ModelInfo
from serving.observing.logs import JsonFormatter, log_request
from serving.observing.tracing import span_observer
from serving.running import background
from serving.server import JudgeServer
from tests.serving.hostile_images import PICTURE, encoded
from tests.serving.hostile_messages import SERVICE, infer_message

TOKEN, PROMPT, IMAGE = "ann-0123456789abcdef", "the crown jewels", encoded(PICTURE, "PNG")
SECRETS = (TOKEN, "ann-0123", PROMPT, "crown", repr(IMAGE[:12])[2:-1], "IHDR")
PARENT = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACEPARENT = f"00-{PARENT[0]}-{PARENT[1]}-01"


class Scorer:
    """Judges by length, but breaks on what ends in an exclamation mark. Costs what it says."""

    def cost(self, group: Group) -> int:
        return 100 * group.size

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        for group in groups:
            if group.prompt.endswith("!"):
                raise ValueError(f"cannot judge {group}")
        return FakeScorer(lambda prompt, image: float(len(image))).score(groups)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server's addresses, the lines it logged so far, and the spans it made."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    stream, exporter, provider = io.StringIO(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    handler, logger = logging.StreamHandler(stream), logging.getLogger("serving")
    handler.setFormatter(JsonFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        observers = [log_request, span_observer()]
    server = JudgeServer(Scorer(), ModelInfo(name="judge"), tokens=TokenFile(path), observers=observers)
    try:
        with background(server) as addresses:
            yield addresses, stream, exporter
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def ask(watched):
    """Sends a request over a wire and gives the lines and the spans that it made."""
    addresses, stream, exporter = watched

    def send(wire, prompt, token=TOKEN, id="", headers=()):
        stream.truncate(stream.seek(0))
        exporter.clear()
        headers = {"authorization": f"Bearer {token}", **dict(headers)}
        message = infer_message([prompt.encode()] * 2, [[IMAGE, b"junk", IMAGE]] * 2, id=id)
        if wire == "grpc":
            with grpc.insecure_channel(addresses.grpc) as channel:
                try:
                    call = channel.unary_unary(f"{SERVICE}ModelInfer", None, None)
                    call(message.SerializeToString(), metadata=list(headers.items()))
                except grpc.RpcError:
                    pass
        else:
            raws = list(message.raw_input_contents)
            inputs = [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.shape),
                    "parameters": {"binary_data_size": len(raw)},
                }
                for tensor, raw in zip(message.inputs, raws, strict=True)
            ]
            head = json.dumps({"inputs": inputs} | ({"id": id} if id else {})).encode()
            headers["Inference-Header-Content-Length"] = str(len(head))
            url = f"http://{addresses.http}/v2/models/judge/infer"
            httpx.post(url, content=head + b"".join(raws), headers=headers)
        text = stream.getvalue()
        assert not [secret for secret in SECRETS if secret in text]
        lines = [json.loads(line) for line in text.splitlines()]
        return lines, {span.name: span for span in exporter.get_finished_spans()}

    return send


wires = pytest.mark.parametrize("wire", ["grpc", "http"])


@wires
def test_a_request_is_one_line_and_three_spans(ask, wire):
    (line,), spans = ask(wire, PROMPT, id="step 7", headers={"traceparent": TRACEPARENT})
    assert {key: line[key] for key in ("level", "logger", "wire", "model", "version", "code")} == {
        "level": "info",
        "logger": "serving.requests",
        "wire": wire,
        "model": "judge",
        "version": "1",
        "code": "OK",
    }
    assert (line["request_id"], line["trace_id"]) == ("step 7", PARENT[0])
    assert (line["groups"], line["candidates"]) == (2, 6)
    assert line["bytes"] == 2 * (len(PROMPT) + 2 * len(IMAGE) + 4)
    assert line["cost"] == 2 * 300
    assert 0 < line["compute_s"] <= line["total_s"] and 0 <= line["queue_s"] <= line["total_s"]
    assert set(spans) == {"infer judge", "queue", "compute"}
    span = spans["infer judge"]
    assert f"{span.parent.span_id:016x}" == PARENT[1] and f"{span.context.trace_id:032x}" == PARENT[0]
    assert span.attributes["prefrm.request_id"] == "step 7"
    assert span.attributes["prefrm.cost"] == line["cost"]
    assert not [secret for secret in SECRETS if secret in span.to_json()]


@wires
def test_the_header_names_the_request_before_the_protocol_does(ask, wire):
    (line,), _ = ask(wire, PROMPT, id="theirs", headers={"x-request-id": "mine"})
    assert line["request_id"] == "mine"
    (line,), _ = ask(wire, PROMPT)
    assert len(line["request_id"]) == 32


@wires
def test_a_scorer_that_raises_is_an_error_with_where_it_was_raised(ask, wire):
    (failure, line), spans = ask(wire, PROMPT + "!")
    assert failure["level"] == line["level"] == "error"
    assert "in score" in failure["exception"]
    assert "ValueError: (its message may quote a request)" in failure["exception"]
    assert line["code"] == "INTERNAL"
    assert not spans["infer judge"].status.is_ok
    assert not [secret for secret in SECRETS if secret in spans["infer judge"].to_json()]


@wires
def test_a_wrong_token_is_one_line_without_it(ask, wire):
    (line,), _ = ask(wire, PROMPT, token="ann-0123456789abcdeX")
    assert (line["code"], line["wire"], line["model"]) == ("UNAUTHENTICATED", wire, "")
