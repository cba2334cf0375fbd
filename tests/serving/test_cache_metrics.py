"""The cache of images in the metrics."""

import httpx
import torch

from prefrm.engine import FeatureCache
from prefrm.engine.cache import EncodedContent
from prefrm.judge import ImageInput
from prefrm.winmatrix import FakeScorer
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


def test_hits_misses_and_bytes_are_those_of_the_moment():
    cache = FeatureCache(10**6)
    server = JudgeServer(FakeScorer(lambda prompt, image: 0.0), ModelInfo(name="judge"), cache=cache)
    image = ImageInput(pixels=torch.empty(0), grid=(1, 1, 1), ids=[0])
    with background(server) as addresses:
        before = httpx.get(f"http://{addresses.metrics}/metrics", trust_env=False).text
        assert 'prefrm_image_cache_hits_total{model="judge",version="1"} 0.0' in before
        cache.get("a")
        cache.put("a", EncodedContent(content=(image,), features={image: torch.zeros(1, 25, 10)}))
        cache.get("a")
        cache.get("a")
        after = httpx.get(f"http://{addresses.metrics}/metrics", trust_env=False).text
    for name, value in (("hits_total", 2.0), ("misses_total", 1.0), ("bytes", 1000.0)):
        assert f'prefrm_image_cache_{name}{{model="judge",version="1"}} {value}' in after


def test_a_scorer_without_a_cache_has_no_such_metrics(served):
    assert (
        "prefrm_image_cache_hits_total{"
        not in httpx.get(f"http://{served.metrics}/metrics", trust_env=False).text
    )
