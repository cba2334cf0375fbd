"""Encoded images within a bound of bytes."""

import pytest
import torch

from prefrm.engine import FeatureCache
from prefrm.engine.cache import EncodedContent
from prefrm.errors import ConfigError
from prefrm.judge import ImageInput

KILOBYTE = 256


def encoded(numbers: int = KILOBYTE) -> EncodedContent:
    image = ImageInput(pixels=torch.empty(0), grid=(1, 1, 1), ids=[0])
    return EncodedContent(content=(image,), features={image: torch.zeros(1, numbers, 1)})


def test_the_least_recently_used_goes_first():
    cache, images = FeatureCache(2048), [encoded() for _ in range(3)]
    cache.put("a", images[0])
    cache.put("b", images[1])
    assert cache.get("a") is images[0]
    cache.put("c", images[2])
    assert cache.get("b") is None
    assert cache.get("a") is images[0] and cache.get("c") is images[2]
    assert (cache.hits, cache.misses) == (3, 1)
    assert len(cache) == 2 and cache.nbytes == 2048


def test_what_is_larger_than_the_cache_pushes_nothing_out():
    cache = FeatureCache(1024)
    cache.put("a", encoded())
    cache.put("b", encoded(2 * KILOBYTE))
    assert cache.get("a") is not None and cache.get("b") is None


def test_the_same_image_is_counted_once():
    cache = FeatureCache(4096)
    cache.put("a", encoded())
    cache.put("a", encoded())
    assert len(cache) == 1 and cache.nbytes == 1024


def test_a_cache_of_nothing_keeps_nothing():
    cache = FeatureCache(0)
    cache.put("a", encoded())
    assert len(cache) == 0 and cache.get("a") is None


def test_a_negative_capacity_is_refused():
    with pytest.raises(ConfigError, match="0 bytes or more; received -1"):
        FeatureCache(-1)
