"""What the benchmark puts behind a server, by name: judges with random weights, and the two-layer model."""

from dataclasses import dataclass

from prefrm.winmatrix import Scorer

__all__ = ["JUDGES", "SCORERS", "ServedJudge", "build_scorer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedJudge:
    """A late judge with random weights.

    Attributes:
        shape: the name of a shape in `prefrm.bench.random_model`.
        image_tokens: of an image.
        device: as in `Judge.from_base`.
        tolerance: how far a probability may be from the one of the same judge in another process.
    """

    shape: str
    image_tokens: int
    device: str
    tolerance: float


JUDGES = {
    "judge": ServedJudge(shape="SIX_LAYERS", image_tokens=16, device="cpu", tolerance=1e-6),
    # Which groups share a pass on an accelerator changes the last bits of bfloat16.
    "judge-3b": ServedJudge(shape="QWEN2_5_VL_3B", image_tokens=256, device="auto", tolerance=0.02),
}
SCORERS = (*JUDGES, "two-layers")


def build_scorer(name: str) -> Scorer:
    """The same of one name in every process."""
    if name == "two-layers":
        from serving.bench.two_layers import TwoLayers, TwoLayersScorer

        return TwoLayersScorer(TwoLayers())
    from prefrm.bench import random_model
    from prefrm.engine import Engine
    from prefrm.judge.model import resolve_device, resolve_dtype

    served = JUDGES[name]
    device = resolve_device(served.device)
    shape: random_model.Shape = getattr(random_model, served.shape)
    judges = random_model.build_judges(
        shape, served.image_tokens, device=device, dtype=resolve_dtype("auto", device)
    )
    # Nothing is kept, so that a group costs the same each time it comes.
    return Engine(judges["late"], cache_bytes=0)
