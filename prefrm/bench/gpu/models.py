"""The models of the benchmark, by name, and what they weigh."""

from typing import Any

from prefrm.bench.random_model import QWEN2_5_VL_3B, QWEN2_5_VL_7B, SIX_LAYERS, TWO_LAYERS, Shape

__all__ = ["SHAPES", "weights_gib"]

SHAPES: dict[str, Shape] = {
    "3b": QWEN2_5_VL_3B,
    "7b": QWEN2_5_VL_7B,
    "small": SIX_LAYERS,
    "tiny": TWO_LAYERS,
}
"""The published shapes of Qwen2.5-VL, and two that a CPU can run."""


def weights_gib(model: Any) -> float:
    """What the parameters of a model take, in GiB."""
    return float(sum(one.numel() * one.element_size() for one in model.parameters()) / 2**30)
