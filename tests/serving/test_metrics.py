"""What is counted of the matrices that the scorer gives, and of the requests that ended."""

import numpy as np
import pytest

from prefrm.winmatrix import WinMatrix
from serving.errors import UnknownModelError
from serving.observing.metrics import Metrics
from serving.observing.requests import Watch


def test_pairs_are_judged_inferred_or_invalid():
    logits = np.full((5, 5), np.nan)
    for n in range(3):
        logits[n, n + 1], logits[n + 1, n] = 1.0, -1.0
    u = np.array([3.0, 2.0, 1.0, 0.0, 0.0])
    matrix = WinMatrix.from_order_logits(logits, errors=["", "", "", "", "gone"])
    matrix = matrix.with_inferred(np.subtract.outer(u, u))
    metrics = Metrics()
    metrics.of_model("judge", "1").batch([matrix, matrix], cost=40, seconds=0.1)
    counted = [
        metrics.registry.get_sample_value(f"prefrm_{name}_total", {"model": "judge", "version": "1"})
        for name in ("pairs", "inferred_pairs", "invalid_pairs")
    ]
    assert counted == [20, 6, 8]


def test_order_gaps_are_counted_pair_by_pair():
    logits = np.array([[0.0, 2.0, 0.5], [-1.0, 0.0, np.nan], [-0.5, np.nan, 0.0]])
    matrix = WinMatrix.from_order_logits(logits, errors=["", "", ""])
    metrics = Metrics()
    metrics.of_model("judge", "1").batch([matrix, matrix], cost=1, seconds=0.1)

    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(
            f"prefrm_order_gap_{name}", {"model": "judge", "version": "1", **labels}
        )

    gap = 1 / (1 + np.exp(-2.0)) - 1 / (1 + np.exp(-1.0))
    assert 0.1 < gap < 0.2
    # Pairs (0, 1) and (0, 2) of two matrices; (1, 2) was not judged, and (0, 2) has no gap.
    assert [sample("bucket", le=le) for le in ("0.01", "0.1", "0.2", "+Inf")] == [2, 2, 4, 4]
    assert sample("sum") == pytest.approx(2 * gap, abs=1e-6)
    assert sample("count") == 4


def test_a_request_of_no_model_that_is_served_makes_no_label():
    metrics = Metrics()
    metrics.of_model("judge", "1")
    watch = Watch([metrics.observe])
    with pytest.raises(UnknownModelError), watch.request("http"):
        raise UnknownModelError("unknown model 'made up'")
    with watch.request("grpc") as request:
        request.model, request.version, request.queue_s, request.compute_s = "judge", "1", 0.25, 0.5
    codes = {("http", "", "NOT_FOUND"): 1, ("grpc", "judge", "OK"): 1}
    for (wire, model, code), count in codes.items():
        labels = {"wire": wire, "model": model, "code": code}
        assert metrics.registry.get_sample_value("prefrm_requests_total", labels) == count
    statistics = metrics.of_model("judge", "1").snapshot()["inference_stats"]
    assert statistics["queue"] == {"count": 1, "ns": 250_000_000}
    assert statistics["compute_infer"] == {"count": 1, "ns": 500_000_000}
    assert statistics["success"]["count"] == 1
    assert statistics["fail"]["count"] == 0
