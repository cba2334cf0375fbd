"""The captioner's architecture: a Qwen2.5-VL of toy size, its image processor, and how both are saved.

Images are 64 x 64 in patches of 8, merged 2 x 2: an image costs the language model 16 tokens. Nothing
here knows the shapes world or trains anything.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_recipes.shapes.captioner.tokenizer import IM_END, IMAGE_PAD, VIDEO_PAD
from data_recipes.shapes.checkpoints import store_in_half

__all__ = ["IMAGE_SIZE", "Architecture", "image_processor", "save", "untrained", "with_layers_on_top"]

IMAGE_SIZE = 64
MERGE_SIZE = 2
ROPE_BASE = 10.0
# About 1 / sqrt(width): with the usual 0.02, made for wide models, captions are hardly learnt at all.
INITIALIZER_RANGE = 0.08
# Words and image tokens start at a like and visible size, and every layer starts as a small correction.
EMBEDDING_RANGE = 0.3
OUTPUT_SCALE = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Sizes of the two towers; a head is a multiple of 16 wide in the text tower, of 4 in the vision's."""

    text_width: int = 128
    text_layers: int = 5
    text_mlp: int = 320
    text_heads: int = 8
    vision_width: int = 64
    vision_layers: int = 2
    vision_mlp: int = 128
    vision_heads: int = 4
    patch_size: int = 8


def untrained(architecture: Architecture, tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """The model with random weights, drawn from torch's global generator."""
    a = architecture
    pairs = a.text_width // a.text_heads // 2
    sides = (pairs - pairs // 4) // 2
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": a.text_width,
            "intermediate_size": a.text_mlp,
            "num_hidden_layers": a.text_layers,
            "num_attention_heads": a.text_heads,
            "num_key_value_heads": a.text_heads,
            "max_position_embeddings": 2048,
            "bos_token_id": None,
            "eos_token_id": token_id(IM_END),
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
            "initializer_range": INITIALIZER_RANGE,
            # Rotary pairs of a head for time, height and width. Width gets the slowest ones, and a
            # usual base would turn those so little that four columns look like one.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_BASE,
                "mrope_section": [pairs - 2 * sides, sides, sides],
            },
        },
        vision_config={
            "depth": a.vision_layers,
            "hidden_size": a.vision_width,
            "intermediate_size": a.vision_mlp,
            "num_heads": a.vision_heads,
            "out_hidden_size": a.text_width,
            "patch_size": a.patch_size,
            "initializer_range": INITIALIZER_RANGE,
            "spatial_merge_size": MERGE_SIZE,
            # One window is the whole image, so that window and full attention are the same.
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": list(range(a.vision_layers)),
        },
        image_token_id=token_id(IMAGE_PAD),
        video_token_id=token_id(VIDEO_PAD),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return _rescaled(Qwen2_5_VLForConditionalGeneration(config))


@torch.no_grad()
def _rescaled(model: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    inside: Any = model.model
    inside.language_model.embed_tokens.weight.mul_(EMBEDDING_RANGE / INITIALIZER_RANGE)
    outputs = [inside.visual.merger.mlp[-1]]
    for layer in inside.language_model.layers:
        outputs += [layer.self_attn.o_proj, layer.mlp.down_proj]
    for block in inside.visual.blocks:
        outputs += [block.attn.proj, block.mlp.down_proj]
    for output in outputs:
        output.weight.mul_(OUTPUT_SCALE)
    return model


@torch.no_grad()
def with_layers_on_top(model: Qwen2_5_VLForConditionalGeneration, layers: int) -> Any:
    """A deeper model with equal outputs: what the new layers add is zero until they are trained.

    The new layers' other weights are drawn from torch's global generator.
    """
    config = copy.deepcopy(model.config)
    text: Any = config.text_config
    text.num_hidden_layers += layers
    text.layer_types = [*text.layer_types, *text.layer_types[-1:] * layers]
    deeper = type(model)(config).train(model.training)
    deeper.load_state_dict(model.state_dict(), strict=False)
    for layer in deeper.model.language_model.layers[-layers:]:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    return deeper


def image_processor(architecture: Architecture) -> Qwen2VLImageProcessorPil:
    """The processor that brings every image to about 64 x 64 pixels and cuts it into patches."""
    pixels = IMAGE_SIZE * IMAGE_SIZE
    return Qwen2VLImageProcessorPil(
        patch_size=architecture.patch_size,
        merge_size=MERGE_SIZE,
        size={"shortest_edge": pixels, "longest_edge": pixels},
    )


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint folder. Weights are stored in half precision and load in single precision."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    store_in_half(folder / "model.safetensors")
