"""What the benchmark puts behind a server, by name: a judge with random weights, and the two-layer model."""

from prefrm.winmatrix import Scorer

__all__ = ["IMAGE_TOKENS", "SCORERS", "build_scorer"]

SCORERS = ("judge", "two-layers")
IMAGE_TOKENS = 16
"""Of an image that the judge is shown."""


def build_scorer(name: str) -> Scorer:
    """The same of one name in every process."""
    if name == "two-layers":
        from serving.bench.two_layers import TwoLayers, TwoLayersScorer

        return TwoLayersScorer(TwoLayers())
    import torch

    from prefrm.bench.random_model import SIX_LAYERS, build_judges
    from prefrm.engine import Engine

    judges = build_judges(SIX_LAYERS, IMAGE_TOKENS, device=torch.device("cpu"), dtype=torch.float32)
    # Nothing is kept, so that a group costs the same each time it comes.
    return Engine(judges["late"], cache_bytes=0)
