"""Checkpoints of the published key layouts, with tiny sizes and random weights."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE = 28


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-level with no merges but one; start and end are the last two of 514 tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=[("r", "e")])


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part of the model changes its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if norm else 0.2 * noise)


def clip_config(**changes: Any) -> CLIPConfig:
    """Two layers of each tower."""
    tokenizer = clip_tokenizer()
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 14,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, **changes)


def save_clip(folder: Path) -> Path:
    """A repository as PickScore's: model, tokenizer and image processor of `transformers`."""
    model = CLIPModel(clip_config())
    randomize(model)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return folder
