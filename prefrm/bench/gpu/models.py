"""The models of the benchmark, by name, what they weigh, and their layers in four bits."""

import re
from importlib import import_module
from typing import Any

from torch import nn

from prefrm.bench.random_model import QWEN2_5_VL_3B, QWEN2_5_VL_7B, SIX_LAYERS, TWO_LAYERS, Shape
from prefrm.judge import family_of
from prefrm.judge.quantization import keep_layout

__all__ = ["SHAPES", "quantize_in_place", "weights_gib"]

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


def quantize_in_place(backbone: Any) -> None:
    """Store the layers of a model that `quantize: nf4` would load in NF4, on the device where they are.

    A checkpoint is quantized while it is loaded, and random weights have none.

    Raises:
        ModuleNotFoundError: bitsandbytes is not installed.
    """
    bnb: Any = import_module("bitsandbytes.nn")
    targets = family_of(backbone.config).lora_targets
    for name, layer in list(backbone.named_modules()):
        if not isinstance(layer, nn.Linear) or not re.fullmatch(targets, name):
            continue
        stored = bnb.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        weight = bnb.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=stored)
        stored.weight = weight.to(layer.weight.device)
        stored.bias = layer.bias
        backbone.set_submodule(name, stored)
    # By these, PEFT knows which adapter goes around such layers, and `transformers` that they may be trained.
    backbone.is_loaded_in_4bit = backbone.is_quantized = True
    keep_layout(backbone)
