"""Spans of requests, where OpenTelemetry is installed: the request, and in it its queueing and its computing.

They are made when a request has ended, from what was noted of it; so they cost nothing while it is worked on
and name neither image nor prompt. Where spans go is up to the process: without an SDK they go nowhere.
"""

import time
from typing import Any

from serving.observing.requests import Observer, Request

__all__ = ["span_observer"]

# Codes for which OpenTelemetry's conventions call a server's span failed.
ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def span_observer() -> Observer | None:
    """What makes the spans of each request, or None where `opentelemetry-api` is not installed."""
    try:
        return _Spans()
    except ModuleNotFoundError:
        return None


class _Spans:
    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = trace.get_tracer("prefrm.serving")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, request: Request) -> None:
        end = time.time_ns()
        start = end - _ns(request.seconds)
        carrier = {"traceparent": request.traceparent, "tracestate": request.tracestate}
        span = self._tracer.start_span(
            f"infer {request.model}".rstrip(),
            context=self._propagator.extract({key: value for key, value in carrier.items() if value}),
            kind=self._trace.SpanKind.SERVER,
            attributes=_attributes(request),
            start_time=start,
        )
        if request.code in ERRORS:
            span.set_status(self._trace.StatusCode.ERROR, request.code)
        if request.queue_s or request.compute_s:
            self._add_parts(span, request, start)
        span.end(end)

    def _add_parts(self, span: Any, request: Request, start: int) -> None:
        inside = self._trace.set_span_in_context(span)
        turn = start + _ns(request.queue_s)
        # The batches of a request that was divided begin before the turn of its last group.
        done = min(turn + _ns(request.compute_s), start + _ns(request.seconds))
        for name, begin, end in (("queue", start, turn), ("compute", done - _ns(request.compute_s), done)):
            part = self._tracer.start_span(name, context=inside, start_time=begin)
            part.end(end)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _attributes(request: Request) -> dict[str, str | int]:
    return {
        "rpc.system": request.wire,
        "prefrm.request_id": request.id,
        "prefrm.model": request.model,
        "prefrm.version": request.version,
        "prefrm.code": request.code,
        "prefrm.groups": request.groups,
        "prefrm.candidates": request.candidates,
        "prefrm.cost": request.cost,
        "prefrm.bytes": request.content_bytes,
    }
