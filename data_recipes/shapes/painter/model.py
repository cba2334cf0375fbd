"""The painter's parts: a tokenizer of the world's words and a Llama of toy size.

A prompt is plain text; the answer that follows it is a program of `scene` and an end token. Nothing
here trains or draws.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_recipes.shapes.prompts import all_prompts
from data_recipes.shapes.scene import COLORS, GRID, SHAPES

__all__ = ["build_tokenizer", "save", "untrained"]

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
# About 1 / sqrt(width); the usual 0.02 is made for wide models.
INITIALIZER_RANGE = 0.08
MAX_POSITIONS = 128


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word of a prompt or a program; case and spacing do not matter."""
    cells = (str(cell) for cell in range(GRID))
    words = {word for prompt in all_prompts() for word in prompt.text.split()}.union(
        COLORS, SHAPES, cells, ";"
    )
    vocabulary = {word: n for n, word in enumerate((PAD, BOS, EOS, UNK, *sorted(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
    )


def untrained(tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int) -> LlamaForCausalLM:
    """The model with random weights, drawn from torch's global generator."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint folder. Weights are stored in half precision and load in single precision."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The configuration keeps dtype float32, which is what `from_pretrained` gives the weights.
    weights = folder / "model.safetensors"
    halves = {name: tensor.to(torch.float16) for name, tensor in load_file(weights).items()}
    save_file(halves, weights, metadata={"format": "pt"})
