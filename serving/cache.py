"""What a scorer's cache of images did so far, read whenever Prometheus asks."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CacheCollector", "ImageCache"]


class ImageCache(Protocol):
    """Something that counts, such as `prefrm.engine.FeatureCache`."""

    hits: int
    misses: int

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        ...


class CacheCollector(Collector):
    """The counts of a cache as metrics; the hit rate is hits / (hits + misses)."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Its three numbers, now."""
        for name, what, value in (
            ("prefrm_image_cache_hits", "Images whose features were there", self._cache.hits),
            ("prefrm_image_cache_misses", "Images that had to be encoded", self._cache.misses),
        ):
            yield CounterMetricFamily(name, what, value=value)
        yield GaugeMetricFamily(
            "prefrm_image_cache_bytes", "What the features of images take", value=self._cache.nbytes
        )
