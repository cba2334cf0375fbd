"""The painter's parts: a tokenizer of the world's words, a Llama of toy size, and how programs are sampled.

A prompt is plain text; the answer that follows it is a program of `scene` and an end token. Nothing
here trains or draws.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_recipes.shapes.checkpoints import store_in_half
from data_recipes.shapes.prompts import all_prompts
from data_recipes.shapes.scene import COLORS, GRID, SHAPES

__all__ = ["MAX_PROGRAM_TOKENS", "build_tokenizer", "paint", "save", "untrained"]

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
# About 1 / sqrt(width); the usual 0.02 is made for wide models.
INITIALIZER_RANGE = 0.08
MAX_POSITIONS = 128
MAX_PROGRAM_TOKENS = 40
"""More than a program takes: five shapes are 25 tokens."""


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


def paint(model: Any, tokenizer: Any, prompts: Sequence[str], *, temperature: float = 1.0) -> list[str]:
    """One sampled program for each prompt; draws from torch's global generator."""
    asked = tokenizer(list(prompts), return_tensors="pt", padding=True)
    with torch.inference_mode():
        tokens = model.eval().generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=MAX_PROGRAM_TOKENS,
        )
    programs: list[str] = tokenizer.batch_decode(
        tokens[:, asked["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return programs


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint folder. Weights are stored in half precision and load in single precision."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    store_in_half(folder / "model.safetensors")
