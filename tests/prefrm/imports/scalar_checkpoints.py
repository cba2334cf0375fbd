"""Scalar judges as they are published, with tiny sizes and random weights, and references of what they read.

A reference is the model of `transformers` with the published weights, called as the judge's own code does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.prefrm.judge.families import TINY, build_tokenizer

PATCH = 56
"""Of a vision tower whose tokens are 112 x 112 pixels, so that an image of 200,704 pixels has 16."""
WIDTH = 32


def save_base(folder: Path, model_type: str = "qwen2_vl") -> Path:
    """Configuration, tokenizer and image processor of a base model, without its weights."""
    config, tokenizer = tiny_config(model_type), build_tokenizer()
    # Padded, as published ones are.
    config.text_config.vocab_size += 20
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


def tiny_config(model_type: str) -> Any:
    config = TINY[model_type].config(build_tokenizer(), WIDTH)
    config.vision_config.patch_size = PATCH
    if model_type == "qwen2_5_vl":
        config.vision_config.window_size = 4 * PATCH
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = False
    return config


def image_processor() -> Any:
    return Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, min_pixels=4 * PATCH**2)


def tiny_model(tokens: tuple[str, ...], model_type: str = "qwen2_vl", seed: int = 0) -> tuple[nn.Module, Any]:
    """A model with a row for each token of its tokenizer, which knows `tokens`, and no more."""
    tokenizer, config = build_tokenizer(), tiny_config(model_type)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    config.text_config.vocab_size = len(tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model, tokenizer


def legacy(model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """The weights under the names of `transformers` 4.45, by which these judges are stored."""
    names = {"model.visual.": "visual.", "model.language_model.": "model."}
    found = {}
    for name, tensor in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        found[prefix + name] = tensor.clone()
    return found


def random_layers(sizes: tuple[int, ...], places: tuple[int, ...], prefix: str) -> dict[str, torch.Tensor]:
    found = {}
    for place, before, after in zip(places, sizes[:-1], sizes[1:], strict=True):
        found[f"{prefix}{place}.weight"] = torch.randn(after, before) / before**0.5
        found[f"{prefix}{place}.bias"] = 0.1 * torch.randn(after)
    return found


@dataclass(frozen=True)
class Read:
    """What a reference is asked: the text of the whole conversation, with one image token, and its model."""

    model: Any
    tokenizer: Any
    pixels: tuple[int, int] | None = None

    @torch.inference_mode()
    def hidden(self, text: str, *shown: Image.Image, mrope: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [L], and hidden states [L, D] after the final norm."""
        images = image_processor()
        if self.pixels is not None:
            images.size = {"shortest_edge": self.pixels[0], "longest_edge": self.pixels[1]}
        data = images(images=list(shown), return_tensors="pt")
        grid = data["image_grid_thw"]
        before, *after = text.split("<|image_pad|>")
        text = before + "".join(
            "<|image_pad|>" * int(sides.prod() // 4) + part for sides, part in zip(grid, after, strict=True)
        )
        ids_1L = torch.tensor([self.tokenizer.encode(text, add_special_tokens=False)])
        where_1L = ids_1L == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        model = self.model.model
        if mrope:
            types = where_1L.int()
            out = model(
                ids_1L, pixel_values=data["pixel_values"], image_grid_thw=grid, mm_token_type_ids=types
            )
            return ids_1L[0], out.last_hidden_state[0]
        embeds = model.get_input_embeddings()(ids_1L)
        embeds[where_1L] = torch.cat(model.get_image_features(data["pixel_values"], grid).pooler_output)
        positions_31L = torch.arange(ids_1L.shape[1]).expand(3, 1, -1)
        out = model.language_model(inputs_embeds=embeds, position_ids=positions_31L)
        return ids_1L[0], out.last_hidden_state[0]


def ranknet(weights: dict[str, torch.Tensor], prefix: str, hidden: torch.Tensor) -> torch.Tensor:
    """HPSv3's head: three layers with ReLU, numbered as beside a dropout."""
    for place in (0, 3, 5):
        hidden = hidden @ weights[f"{prefix}{place}.weight"].T + weights[f"{prefix}{place}.bias"]
        hidden = hidden.relu() if place < 5 else hidden
    return hidden


def save_hpsv3(path: Path) -> tuple[Read, dict[str, torch.Tensor]]:
    """The one file of HPSv3."""
    model, tokenizer = tiny_model(("<|Reward|>",))
    weights = legacy(model) | random_layers((WIDTH, 1024, 16, 2), (0, 3, 5), "rm_head.")
    save_file(weights, path)
    return Read(model, tokenizer, (256 * 28 * 28, 256 * 28 * 28)), weights


def save_editreward(path: Path, model_type: str = "qwen2_5_vl") -> tuple[Read, dict[str, torch.Tensor]]:
    """The one file of EditReward on Qwen2.5-VL, or on Qwen3-VL, which has the names of later versions."""
    model, tokenizer = tiny_model(("<|Reward|>",), model_type)
    weights = legacy(model)
    if model_type == "qwen3_vl":
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for n in range(2):
        weights |= random_layers((WIDTH, 1024, 16, 2), (0, 3, 5), f"rm_heads.head_{n}.")
    save_file(weights, path)
    return Read(model, tokenizer, (256 * 28 * 28, 256 * 28 * 28)), weights


def save_skywork(folder: Path) -> tuple[Read, dict[str, torch.Tensor]]:
    """A whole repository of a Qwen2.5-VL, and trl's value head beside it."""
    save_base(folder, "qwen2_5_vl")
    model, tokenizer = tiny_model((), "qwen2_5_vl")
    model.save_pretrained(folder)
    head = {"v_head.summary.weight": torch.randn(1, WIDTH), "v_head.summary.bias": torch.randn(1)}
    save_file(head, folder / "value_head.safetensors")
    return Read(model, tokenizer), head


def save_videoreward(folder: Path, outputs: int) -> tuple[Read, torch.Tensor]:
    """An unmerged adapter in a pickle, its settings in the folder around it; the head [outputs, D]."""
    tokens = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
    model, tokenizer = tiny_model(tokens)
    rank, alpha = 3, 12
    weights = legacy(model, "base_model.model.")
    with torch.no_grad():
        for name, layer in model.model.language_model.named_modules():
            if not name.endswith(("q_proj", "v_proj")):
                continue
            key = f"base_model.model.model.{name}."
            down, up = torch.randn(rank, layer.in_features), 0.1 * torch.randn(layer.out_features, rank)
            for part in [part for part in ("weight", "bias") if key + part in weights]:
                weights[f"{key}base_layer.{part}"] = weights.pop(key + part)
            weights |= {f"{key}lora_A.default.weight": down, f"{key}lora_B.default.weight": up}
            layer.weight += alpha / rank * up @ down
    head = torch.randn(outputs, WIDTH)
    weights["base_model.model.rm_head.weight"] = head
    (folder / "checkpoint-11352").mkdir()
    torch.save(weights, folder / "checkpoint-11352" / "model.pth")
    numbers = {"VQ_mean": 3.7, "VQ_std": 2.2, "MQ_mean": 1.2, "MQ_std": 1.4, "TA_mean": 2.8, "TA_std": 2.5}
    settings = {"peft_lora_config": {"lora_r": rank, "lora_alpha": alpha}, "inference_config": numbers}
    (folder / "model_config.json").write_text(json.dumps(settings))
    return Read(model, tokenizer, (128 * 28 * 28, 256 * 28 * 28)), head
