"""Low-rank adapters that were published beside the weights that they change.

Shapes: R rank, I inputs and O outputs of a layer.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from prefrm.errors import ConfigError

__all__ = ["merge_lora"]

BASE, DOWN, UP = ".base_layer", ".lora_A.default", ".lora_B.default"
"""As PEFT names the parts of a layer with an adapter."""


def merge_lora(
    weights: Mapping[str, torch.Tensor], settings: Mapping[str, Any], source: str
) -> dict[str, torch.Tensor]:
    """The weights of a model whose state was stored with its LoRA adapter unmerged (arXiv 2106.09685).

    W + alpha / r * B A in float32, or alpha / sqrt(r) with `use_rslora`; rounded to the type of W.

    Args:
        weights: by PEFT's names, without its prefix.
        settings: `lora_r`, `lora_alpha` and perhaps `use_rslora`.
        source: of the weights, for messages.

    Raises:
        ConfigError: the settings lack a number, or a layer has one half of an adapter or one of another rank.
    """
    rank, alpha = settings.get("lora_r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ConfigError(
            f"{source}: the adapter's settings need lora_r, a whole number of at least 1, and lora_alpha, a "
            f"number; received {rank!r} and {alpha!r}"
        )
    factor = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    merged = {name.replace(BASE, ""): tensor for name, tensor in weights.items() if not _is_update(name)}
    for name in filter(_is_update, weights):
        layer = name.replace(DOWN, "").replace(UP, "")
        stem = layer.removesuffix(".weight")
        down_RI, up_OR = (weights.get(f"{stem}{part}.weight") for part in (DOWN, UP))
        if down_RI is None or up_OR is None or not _fits(merged.get(layer), down_RI, up_OR, rank):
            raise ConfigError(
                f"{source}: {name} is not half of an adapter of rank {rank} on a layer that is there"
            )
        if DOWN in name:
            update_OI = factor * (up_OR.float() @ down_RI.float())
            merged[layer] = (merged[layer].float() + update_OI).to(merged[layer].dtype)
    return merged


def _fits(weight_OI: torch.Tensor | None, down_RI: torch.Tensor, up_OR: torch.Tensor, rank: int) -> bool:
    if weight_OI is None or weight_OI.ndim != 2:
        return False
    outputs, inputs = weight_OI.shape
    return down_RI.shape == (rank, inputs) and up_OR.shape == (outputs, rank)


def _is_update(name: str) -> bool:
    return DOWN in name or UP in name
