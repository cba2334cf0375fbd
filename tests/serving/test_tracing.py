"""The spans of a request, read back from OpenTelemetry's own exporter in memory."""

import subprocess
import sys
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.observing.requests import Request
from serving.observing.tracing import span_observer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch):
    """Makes the spans of a request, by name."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    observe = span_observer()

    def make(**fields):
        exporter.clear()
        observe(Request(wire="grpc", **fields))
        return {span.name: span for span in exporter.get_finished_spans()}

    return make


def seconds(span) -> float:
    return (span.end_time - span.start_time) / 1e9


def test_a_request_is_a_span_with_its_queueing_and_computing_in_it(spans):
    made = spans(
        id="7", model="judge", version="2", groups=3, candidates=12, cost=700, content_bytes=4096,
        queue_s=0.25, compute_s=0.5, seconds=0.8,
    )  # fmt: skip
    assert set(made) == {"infer judge", "queue", "compute"}
    request, queue, compute = made["infer judge"], made["queue"], made["compute"]
    assert request.kind is SpanKind.SERVER and request.parent is None
    assert dict(request.attributes) == {
        "rpc.system": "grpc",
        "prefrm.request_id": "7",
        "prefrm.model": "judge",
        "prefrm.version": "2",
        "prefrm.code": "OK",
        "prefrm.groups": 3,
        "prefrm.candidates": 12,
        "prefrm.cost": 700,
        "prefrm.bytes": 4096,
    }
    assert [seconds(span) for span in (request, queue, compute)] == pytest.approx([0.8, 0.25, 0.5])
    assert time.time_ns() - request.end_time < 5e9
    assert queue.start_time == request.start_time
    assert compute.start_time == queue.end_time
    for part in (queue, compute):
        assert part.parent.span_id == request.context.span_id
        assert part.context.trace_id == request.context.trace_id


def test_the_computing_of_a_divided_request_ends_with_it_at_the_latest(spans):
    made = spans(model="judge", queue_s=0.5, compute_s=0.6, seconds=0.8)
    assert made["compute"].end_time == made["infer judge"].end_time
    assert seconds(made["compute"]) == pytest.approx(0.6)


def test_the_clients_trace_goes_on(spans):
    span = spans(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1", seconds=0.1)["infer"]
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.parent.is_remote
    assert span.context.trace_state["vendor"] == "1"


@pytest.mark.parametrize(
    "traceparent", [f"00-{TRACE}-{PARENT}-00", f"ff-{TRACE}-{PARENT}-01", "\n", "00-0-0-0"]
)
def test_one_that_is_not_sampled_or_not_valid_is_taken_as_such(spans, traceparent):
    made = spans(traceparent=traceparent, seconds=0.1)
    if traceparent.endswith("-00"):
        assert made == {}
    else:
        assert made["infer"].parent is None


@pytest.mark.parametrize(
    ("code", "failed"),
    [("OK", False), ("INVALID_ARGUMENT", False), ("RESOURCE_EXHAUSTED", False), ("CANCELLED", False)]
    + [(code, True) for code in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED")],
)
def test_only_the_servers_failures_are_errors(spans, code, failed):
    span = spans(code=code, seconds=0.1)["infer"]
    assert (span.status.status_code is StatusCode.ERROR) == failed
    assert span.attributes["prefrm.code"] == code


def test_a_request_that_was_refused_before_it_queued_is_one_span(spans):
    assert set(spans(code="INVALID_ARGUMENT", seconds=0.01)) == {"infer"}


def test_without_the_library_there_is_no_observer_and_nothing_is_loaded():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from serving.observing.tracing import span_observer\n"
        "assert span_observer() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, serving.observing.tracing\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
