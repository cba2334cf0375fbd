"""Order gaps as a histogram: how far judges are from saying the same of a pair in both orders."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["GAP_BOUNDS", "OrderGaps", "of_pairs"]

GAP_BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


class OrderGaps(Collector):
    """Counts of order gaps by model. Of prometheus_client's histograms, each value would take a call."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], npt.NDArray[np.int64]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def add(self, model: str, version: str, gaps: npt.NDArray[np.float32]) -> None:
        """Count the gaps of pairs; NaN of one that has none."""
        gaps = gaps[~np.isnan(gaps)]
        places = np.searchsorted(GAP_BOUNDS, gaps)
        key = (model, version)
        before = self._counts.get(key, np.zeros(len(GAP_BOUNDS) + 1, dtype=np.int64))
        self._counts[key] = before + np.bincount(places, minlength=len(GAP_BOUNDS) + 1)
        self._sums[key] = self._sums.get(key, 0.0) + float(gaps.sum(dtype=np.float64))

    def collect(self) -> Iterator[Metric]:
        """One histogram for each model."""
        family = HistogramMetricFamily(
            "prefrm_order_gap",
            "Change of a pair's probability when it is presented the other way round",
            labels=["model", "version"],
        )
        bounds = [*map(str, GAP_BOUNDS), "+Inf"]
        for key, counts in self._counts.items():
            buckets = list(zip(bounds, np.cumsum(counts).astype(float).tolist(), strict=True))
            family.add_metric(list(key), buckets, self._sums[key])
        yield family


def of_pairs(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What stands above the diagonals of square arrays: one entry for each pair."""
    return np.concatenate([array[_above_diagonal(len(array))] for array in arrays] or [np.empty(0)])


@lru_cache(maxsize=64)
def _above_diagonal(size: int) -> npt.NDArray[np.bool_]:
    return np.triu(np.ones((size, size), dtype=bool), 1)
