"""What the server has done so far, counted once for the two who ask: Prometheus and the protocol."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from prefrm.winmatrix import WinMatrix
from serving.cache import CacheCollector, ImageCache
from serving.errors import ServingError

__all__ = ["Stats"]

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GROUPS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Stats:
    """Counters of one server, on a Prometheus registry of its own.

    Args:
        cache: the scorer's cache of images, if it has one.
    """

    def __init__(self, cache: ImageCache | None = None) -> None:
        self.registry = CollectorRegistry()
        if cache is not None:
            self.registry.register(CacheCollector(cache))
        self._requests = Counter(
            "prefrm_requests",
            "Inference requests by wire and status code",
            ["wire", "code"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "prefrm_request_seconds",
            "From a request's arrival to its answer",
            ["wire"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "prefrm_requests_in_flight", "Inference requests that wait or are scored", registry=self.registry
        )
        self._batch_groups = Histogram(
            "prefrm_batch_groups",
            "Groups that were scored together",
            buckets=GROUPS_BUCKETS,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "prefrm_batch_seconds",
            "Time the scorer took for a batch",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._pairs = Counter(
            "prefrm_pairs", "Pairs of candidates that were asked for", registry=self.registry
        )
        self._invalid_pairs = Counter(
            "prefrm_invalid_pairs",
            "Pairs of candidates that were neither judged nor inferred",
            registry=self.registry,
        )
        self._inferred_pairs = Counter(
            "prefrm_inferred_pairs",
            "Pairs of candidates that were inferred from others",
            registry=self.registry,
        )
        self._durations = {name: [0, 0.0] for name in ("success", "fail", "queue", "compute_infer")}
        self._groups = 0
        self._batches = 0
        self._last_ms = 0

    @contextmanager
    def request(self, wire: str) -> Iterator[None]:
        """Count one inference request: its duration, and its code by what leaves the block."""
        started, code = time.monotonic(), "OK"
        self._in_flight.inc()
        try:
            yield
        except BaseException as error:
            code = _code(error)
            raise
        finally:
            seconds = time.monotonic() - started
            self._in_flight.dec()
            self._requests.labels(wire, code).inc()
            self._latency.labels(wire).observe(seconds)
            self._add("success" if code == "OK" else "fail", seconds)

    def batch(self, matrices: Sequence[WinMatrix], *, seconds: float, waits: Sequence[float]) -> None:
        """Count one batch: its matrices, the scorer's time, and how long each of its requests waited."""
        self._groups += len(matrices)
        self._batches += 1
        self._last_ms = int(time.time() * 1000)
        self._batch_groups.observe(len(matrices))
        self._batch_seconds.observe(seconds)
        self._add("compute_infer", seconds, count=len(waits))
        for wait in waits:
            self._add("queue", wait)
        for matrix in matrices:
            self._pairs.inc(matrix.size * (matrix.size - 1) // 2)
            self._invalid_pairs.inc(int(np.triu(~matrix.known, 1).sum()))
            self._inferred_pairs.inc(int(np.triu(matrix.inferred, 1).sum()))

    def snapshot(self) -> dict[str, Any]:
        """The protocol's model statistics, without the model's name: counts, and durations in nanoseconds."""
        return {
            "last_inference": self._last_ms,
            "inference_count": self._groups,
            "execution_count": self._batches,
            "inference_stats": {
                name: {"count": count, "ns": int(seconds * 1e9)}
                for name, (count, seconds) in self._durations.items()
            },
        }

    def _add(self, name: str, seconds: float, *, count: int = 1) -> None:
        entry = self._durations[name]
        entry[0] += count
        entry[1] += seconds * count


def _code(error: BaseException) -> str:
    if isinstance(error, ServingError):
        return error.grpc_status
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"
