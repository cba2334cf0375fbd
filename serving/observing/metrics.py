"""What the server has done so far, on a Prometheus registry of its own; each model has its share.

The protocol's statistics are counted with the metrics, so that both say the same.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from weakref import ref

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from prefrm.winmatrix import WinMatrix
from serving.observing.cache import CacheCollector, ImageCache
from serving.observing.gaps import OrderGaps, of_pairs
from serving.observing.logs import dropped_records
from serving.observing.requests import Request

__all__ = ["Metrics", "ModelMetrics", "Queue"]

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GROUPS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The protocol's, which readers look up by name; there is no cache of responses.
STATISTICS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)
COST_BUCKETS = tuple(float(2**n) for n in range(4, 23, 2))


class Queue(Protocol):
    """What is asked of a queue whenever Prometheus comes by."""

    @property
    def queued_groups(self) -> int:
        """Groups that wait."""
        ...

    @property
    def queued_cost(self) -> int:
        """Tokens that they cost."""
        ...

    @property
    def age_s(self) -> float:
        """Seconds that the oldest of them has waited."""
        ...


class Metrics:
    """Every metric of a server.

    Attributes:
        registry: what Prometheus reads.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.gaps = OrderGaps()
        self.caches = CacheCollector()
        self.registry.register(self.gaps)
        self.registry.register(self.caches)
        self.registry.register(_Log())
        by_model: dict[str, Any] = {"labelnames": ["model", "version"], "registry": self.registry}
        self.requests = Counter(
            "prefrm_requests",
            "Inference requests by wire and status code",
            ["wire", "model", "code"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "prefrm_request_seconds",
            "From a request's arrival to its answer",
            ["wire"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "prefrm_requests_in_flight", "Inference requests that wait or are scored", registry=self.registry
        )
        self.in_flight_bytes = Gauge(
            "prefrm_in_flight_bytes", "Bytes that the server holds for requests", registry=self.registry
        )
        self.batch_groups = Histogram(
            "prefrm_batch_groups", "Groups that were scored together", buckets=GROUPS_BUCKETS, **by_model
        )
        self.batch_cost = Histogram(
            "prefrm_batch_cost",
            "Estimated tokens of what was scored together",
            buckets=COST_BUCKETS,
            **by_model,
        )
        self.batch_seconds = Histogram(
            "prefrm_batch_seconds", "Time the scorer took for a batch", buckets=SECONDS_BUCKETS, **by_model
        )
        self.decode_seconds = Histogram(
            "prefrm_decode_seconds",
            "Time to decode a large image ahead of its batch",
            buckets=SECONDS_BUCKETS,
            **by_model,
        )
        self.pairs = Counter("prefrm_pairs", "Pairs of candidates that were asked for", **by_model)
        self.invalid_pairs = Counter(
            "prefrm_invalid_pairs", "Pairs of candidates that were neither judged nor inferred", **by_model
        )
        self.inferred_pairs = Counter(
            "prefrm_inferred_pairs", "Pairs of candidates that were inferred from others", **by_model
        )
        self.queue_groups = Gauge("prefrm_queue_groups", "Groups that wait for their turn", **by_model)
        self.queue_cost = Gauge("prefrm_queue_cost", "Estimated tokens of the groups that wait", **by_model)
        self.queue_age = Gauge(
            "prefrm_queue_age_seconds", "How long the oldest of them has waited", **by_model
        )

    def of_model(self, name: str, version: str, cache: ImageCache | None = None) -> "ModelMetrics":
        """The share of a model, which goes on from what it was if the model was served before.

        Args:
            name: of the model.
            version: of the model.
            cache: the scorer's cache of images, if it has one.
        """
        self.caches.watch(name, version, cache)
        return self._models.setdefault((name, version), ModelMetrics(self, name, version))

    def observe(self, request: Request) -> None:
        """Count a request that ended; of an unknown model it counts for "", lest clients make up labels."""
        self.requests.labels(request.wire, request.model, request.code).inc()
        self.latency.labels(request.wire).observe(request.seconds)
        model = self._models.get((request.model, request.version))
        if model is not None:
            model.observe(request)


class _Log(Collector):
    """What this process's log has dropped, read whenever Prometheus asks."""

    def collect(self) -> Iterator[Metric]:
        text = "Log records that could not be written, or not fast enough"
        yield CounterMetricFamily("prefrm_log_dropped", text, value=dropped_records())


class ModelMetrics:
    """The share of one model: its batches, its queue, and the protocol's statistics of it."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._name, self._version = name, version
        self._gaps = metrics.gaps
        self._batch_groups = metrics.batch_groups.labels(name, version)
        self._batch_cost = metrics.batch_cost.labels(name, version)
        self._batch_seconds = metrics.batch_seconds.labels(name, version)
        self._decode_seconds = metrics.decode_seconds.labels(name, version)
        self._pairs = metrics.pairs.labels(name, version)
        self._invalid_pairs = metrics.invalid_pairs.labels(name, version)
        self._inferred_pairs = metrics.inferred_pairs.labels(name, version)
        self._queue_groups = metrics.queue_groups.labels(name, version)
        self._queue_cost = metrics.queue_cost.labels(name, version)
        self._queue_age = metrics.queue_age.labels(name, version)
        self._durations: dict[str, tuple[int, float]] = dict.fromkeys(STATISTICS, (0, 0.0))
        self._by_size: dict[int, tuple[int, float]] = {}
        self._groups = 0
        self._batches = 0
        self._last_ms = 0

    def watch_queue(self, queue: Queue) -> None:
        """Tell of this queue from now on, for as long as it lives."""
        # A model that is not served any more must be able to leave, with its judge.
        found = ref(queue)
        self._queue_groups.set_function(lambda: live.queued_groups if (live := found()) else 0)
        self._queue_cost.set_function(lambda: live.queued_cost if (live := found()) else 0)
        self._queue_age.set_function(lambda: live.age_s if (live := found()) else 0)

    def decoded(self, seconds: float) -> None:
        """Count one image that was decoded ahead."""
        self._decode_seconds.observe(seconds)

    def batch(self, matrices: Sequence[WinMatrix], *, cost: int, seconds: float) -> None:
        """Count one batch: the matrices of its groups, its cost in tokens, and the scorer's time."""
        self._groups += len(matrices)
        self._batches += 1
        self._last_ms = int(time.time() * 1000)
        times, total = self._by_size.get(len(matrices), (0, 0.0))
        self._by_size[len(matrices)] = (times + 1, total + seconds)
        self._batch_groups.observe(len(matrices))
        self._batch_cost.observe(cost)
        self._batch_seconds.observe(seconds)
        unknown = np.isnan(of_pairs([matrix.p for matrix in matrices]))
        valid = of_pairs([matrix.valid for matrix in matrices])
        self._pairs.inc(len(unknown))
        self._invalid_pairs.inc(int(np.count_nonzero(unknown)))
        self._inferred_pairs.inc(int(len(unknown) - np.count_nonzero(unknown) - np.count_nonzero(valid)))
        self._gaps.add(self._name, self._version, of_pairs([matrix.order_gap for matrix in matrices]))

    def observe(self, request: Request) -> None:
        """Count one request that ended."""
        succeeded = request.code == "OK"
        self._add("success" if succeeded else "fail", request.seconds)
        if succeeded:
            self._add("queue", request.queue_s)
            self._add("compute_input", request.input_s)
            self._add("compute_infer", request.compute_s)
            self._add("compute_output", request.output_s)

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
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_infer": {"count": count, "ns": int(seconds * 1e9)},
                    # Tensors are read and written for each request, not for each batch.
                    "compute_input": {"count": 0, "ns": 0},
                    "compute_output": {"count": 0, "ns": 0},
                }
                for size, (count, seconds) in sorted(self._by_size.items())
            ],
            "memory_usage": [],
            "response_stats": {},
        }

    def _add(self, name: str, seconds: float) -> None:
        count, total = self._durations[name]
        self._durations[name] = (count + 1, total + seconds)
