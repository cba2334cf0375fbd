"""Quantization of the language model to four bits, and dequantization.

NF4 with double quantization, as QLoRA has it (arXiv 2305.14314): each 64 weights share a scale, and the
scales are stored in eight bits. A layer is dequantized whenever it is used, so nothing computes in four
bits. Needs bitsandbytes, of the extra `train`. What learns on top of it is `prefrm.train`'s.
"""

import logging
import re
from importlib import import_module
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from prefrm.errors import ConfigError, missing_extra

__all__ = ["compute_in_float32", "dequantize", "is_quantized", "keep_layout", "nf4_settings"]

# Weights that share a scale; a layer whose rows do not hold whole blocks has no kernel.
BLOCK = 64


def nf4_settings(skeleton: Any, targets: str, *, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What `from_pretrained` needs to store some linear layers in NF4 and everything else as it is.

    Args:
        skeleton: the model, of which only names and shapes count.
        targets: a regular expression over whole module paths: the layers that are stored in NF4.
        dtype: of the rest, and of what a layer computes in.

    Raises:
        ConfigError: a layer's rows hold no whole blocks; the message names it.
        MissingExtraError: bitsandbytes or accelerate is not installed.
    """
    for package in ("accelerate", "bitsandbytes"):
        try:
            import_module(package)
        except ImportError as error:
            raise missing_extra(package, "train") from error
    kept = []
    for name, module in skeleton.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if not re.fullmatch(targets, name):
            kept.append(name)
        elif module.in_features % BLOCK:
            raise ConfigError(
                f"quantize=nf4 needs layers with a multiple of {BLOCK} inputs, and {name} has "
                f"{module.in_features}; leave judge.quantize out, or take another base model"
            )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def keep_layout(model: Any) -> None:
    """Forbid bitsandbytes to rewrite the weights of a model in evaluation.

    On a CPU with bfloat16 instructions the first evaluation would pack them for a kernel that rounds
    to bfloat16 and has no gradient: the judge would score otherwise than it was trained, and train no more.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def compute_in_float32(model: Any) -> None:
    """Let quantized layers, if there are any, dequantize to float32 and multiply in it."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = module.weight.quant_state.dtype = torch.float32


def is_quantized(model: Any) -> bool:
    """Whether the `transformers` model was loaded with quantized layers."""
    return bool(getattr(model, "is_quantized", False))


def dequantize(model: Any, dtype: torch.dtype) -> Any:
    """Give the `transformers` model the weights that its layers stand for, in place, rounded to `dtype`."""
    # It warns of a dequantization that is intended here.
    logging.getLogger("transformers.integrations.bitsandbytes").setLevel(logging.ERROR)
    return model.dequantize(dtype)
