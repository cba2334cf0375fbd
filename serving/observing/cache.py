"""What the scorers' caches of images did so far, read whenever Prometheus asks."""

from collections.abc import Iterator
from typing import Protocol
from weakref import WeakValueDictionary

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CacheCollector", "ImageCache"]

LABELS = ("model", "version")


class ImageCache(Protocol):
    """Something that counts, such as `prefrm.engine.FeatureCache`."""

    hits: int
    misses: int

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        ...


class CacheCollector(Collector):
    """The counts of caches as metrics; the hit rate is hits / (hits + misses)."""

    def __init__(self) -> None:
        # A model that is not served any more must be able to leave, with its judge.
        self._caches: WeakValueDictionary[tuple[str, str], ImageCache] = WeakValueDictionary()

    def watch(self, model: str, version: str, cache: ImageCache | None) -> None:
        """Tell of this cache from now on, or of none."""
        self._caches.pop((model, version), None)
        if cache is not None:
            self._caches[model, version] = cache

    def collect(self) -> Iterator[Metric]:
        """Three numbers of each, now."""
        hits = CounterMetricFamily(
            "prefrm_image_cache_hits", "Images whose features were there", labels=LABELS
        )
        misses = CounterMetricFamily(
            "prefrm_image_cache_misses", "Images that had to be encoded", labels=LABELS
        )
        nbytes = GaugeMetricFamily(
            "prefrm_image_cache_bytes", "What the features of images take", labels=LABELS
        )
        for key, cache in list(self._caches.items()):
            hits.add_metric(key, cache.hits)
            misses.add_metric(key, cache.misses)
            nbytes.add_metric(key, cache.nbytes)
        yield from (hits, misses, nbytes)
