"""The encoders of a dual encoder: modules of `transformers`, and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    BlipTextModel,
    BlipVisionModel,
    CLIPModel,
    CLIPVisionModelWithProjection,
    SiglipModel,
)

from prefrm.errors import ConfigError
from prefrm.judge.weights import check_weights, load_weights, read_weights, visible_files
from prefrm.manifest.contents import DUAL_TYPES, check_checkpoint

__all__ = ["BlipTowers", "build_towers", "fill_towers", "head_width", "read_affine", "read_towers"]

SIMILARITY = {"clip": CLIPModel, "siglip": SiglipModel}


class BlipTowers(nn.Module):
    """BLIP's image encoder, and its text encoder that attends to what that says of an image."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)


def build_towers(config: Any, score: str) -> Any:
    """The encoders of a configuration of `transformers` on the meta device, for a score of `DualSpec`.

    Raises:
        ConfigError: such a model has no such score.
    """
    kind: Any = None
    if score == "similarity":
        kind = SIMILARITY.get(config.model_type)
    elif (score, config.model_type) == ("aesthetic", "clip_vision_model"):
        kind = CLIPVisionModelWithProjection
    elif (score, config.model_type) == ("fusion", "blip"):
        kind = BlipTowers
    if kind is None:
        raise ConfigError(f"a model of the type {config.model_type!r} has no score {score!r}")
    with torch.device("meta"):
        return kind(config)


def fill_towers(towers: Any, weights: Mapping[str, torch.Tensor], source: Path | str) -> Any:
    """Give encoders on the meta device their weights, in the weights' own type, and return them.

    Raises:
        ConfigError: a weight is missing, unexpected or of another shape; it and `source` are named.
    """
    check_weights(source, weights, towers.state_dict())
    towers.load_state_dict(weights, assign=True)
    for module in towers.modules():
        # Not a weight, so no file has it.
        if (ids := module._buffers.get("position_ids")) is not None:
            module.position_ids = torch.arange(ids.shape[-1]).expand(1, -1)
    return towers.eval().requires_grad_(False)


def read_towers(folder: Path, score: str) -> Any:
    """The encoders of a checkpoint's folder, on the CPU. Raises `ConfigError` as the functions above."""
    check_checkpoint(folder, DUAL_TYPES)
    towers = build_towers(AutoConfig.from_pretrained(folder, trust_remote_code=False), score)
    weights: dict[str, torch.Tensor] = {}
    for path in visible_files(folder, "*.safetensors"):
        weights |= read_weights(path)
    return fill_towers(towers, weights, folder)


def head_width(config: Any) -> int:
    """How many numbers an affine head reads: an image embedding, or a state of the text encoder."""
    width: int = config.text_config.hidden_size if config.model_type == "blip" else config.projection_dim
    return width


def read_affine(path: Path, width: int) -> nn.Linear:
    """An affine map from `width` numbers to one, in float32. Raises `ConfigError` if the file has another."""
    with torch.device("meta"):
        head = nn.Linear(width, 1)
    load_weights(head, path)
    return head.requires_grad_(False)
