"""A Qwen2.5-VL with random weights, in memory: real classes and real token counts, and nothing to download.

What a forward pass costs depends on shapes and lengths alone, so its verdicts mean nothing and its times mean
what those of a trained checkpoint of that shape would.
"""

import math
import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_recipes.shapes.captioner.tokenizer import CHAT_TEMPLATE, IM_END, IMAGE_PAD, SPECIAL_TOKENS
from prefrm.judge import Judge, JudgeProcessor, JudgeSpec, build_head
from prefrm.judge.backbones import BaseModel
from prefrm.judge.layout import TREES
from prefrm.prompts import default_template, get_template
from prefrm.prompts.places import cut, mark
from prefrm.winmatrix import Kind

__all__ = [
    "CRITERIA",
    "KINDS",
    "PROMPT",
    "QWEN2_5_VL_3B",
    "QWEN2_5_VL_7B",
    "SIX_LAYERS",
    "TWO_LAYERS",
    "Shape",
    "build_backbone",
    "build_judge",
    "build_judges",
    "build_tokenizer",
    "side_of",
]

PROMPT = (
    "A photo of two brown dogs running along a beach at sunset, one of them with a red ball in its mouth, "
    "and a small white boat behind them"
)
"""31 tokens."""
CRITERIA = ("two dogs", "a red ball", "a small white boat behind them")
"""Of words of the prompt."""
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
# How Qwen's tokenizer cuts a text into words; every word that is used here is one token of its vocabulary.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = re.compile(r"<\|\w+\|>")
# Of both towers, as published.
PATCH, MERGE, WINDOW = 14, 2, 112
# Rotary pairs of a head for time, height and width, as published: 16, 24 and 24 of 64.
SECTIONS = (2, 3, 3)
KINDS: dict[str, dict[str, str]] = {
    "joint": {"attention": "joint"},
    "late": {},
    "scalar": {"head": "scalar"},
    "embedding": {"head": "embedding"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Qwen2.5-VL, and of the images that it is shown.

    Attributes:
        full_layers: of the vision tower, those that attend to the whole image; the others, to a window.
        vocabulary: rows of the embedding; None is as many as the tokenizer has.
        tied: whether the output layer is the embedding.
        image_tokens: how many tokens an image has, a square number; one benchmark for each.
    """

    text_width: int
    text_inner: int
    text_layers: int
    text_heads: int
    text_kv_heads: int
    vision_width: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    full_layers: tuple[int, ...]
    vocabulary: int | None
    image_tokens: tuple[int, ...]
    tied: bool = True


SIX_LAYERS = Shape(
    text_width=256,
    text_inner=1024,
    text_layers=6,
    text_heads=4,
    text_kv_heads=2,
    vision_width=256,
    vision_inner=684,
    vision_layers=6,
    vision_heads=4,
    full_layers=(5,),
    vocabulary=None,
    image_tokens=(256,),
)
"""For a CPU: heads of 64, and the published vision tower's ratio of inner size to width."""
TWO_LAYERS = replace(
    SIX_LAYERS,
    text_width=64,
    text_inner=128,
    text_layers=2,
    text_heads=2,
    text_kv_heads=1,
    vision_width=64,
    vision_inner=128,
    vision_layers=2,
    vision_heads=2,
    full_layers=(1,),
    image_tokens=(25,),
)
"""For tests: every layer has whole blocks of 64 inputs, so that it can be stored in four bits."""
QWEN2_5_VL_3B = Shape(
    text_width=2048,
    text_inner=11008,
    text_layers=36,
    text_heads=16,
    text_kv_heads=2,
    vision_width=1280,
    vision_inner=3420,
    vision_layers=32,
    vision_heads=16,
    full_layers=(7, 15, 23, 31),
    vocabulary=151936,
    image_tokens=(256, 1024),
)
"""huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, config.json."""
QWEN2_5_VL_7B = replace(
    QWEN2_5_VL_3B,
    text_width=3584,
    text_inner=18944,
    text_layers=28,
    text_heads=28,
    text_kv_heads=4,
    vocabulary=152064,
    tied=False,
)
"""huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct, config.json."""


def side_of(image_tokens: int) -> int:
    """Side, in pixels, of a square image with that number of tokens."""
    return math.isqrt(image_tokens) * MERGE * PATCH


def build_tokenizer() -> PreTrainedTokenizerFast:
    """As many tokens of the benchmark's texts as Qwen's tokenizer makes; it knows no other words.

    The same cuts into words, each of which is one token: the template match-v1 reads out in 20 tokens.
    """
    splits = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    texts = [PROMPT, *CRITERIA, *CONTROL.split(SYSTEM), "user\n", "assistant\n"]
    kinds = product(TREES, get_args(Kind))
    for template in (get_template(default_template(attention=x, kind=kind), kind) for x, kind in kinds):
        runs = (template.turn, *(template.suffixes or ()))
        texts += [piece.content for run in runs for piece in cut(mark(run)) if piece.is_text]
        texts += template.answers
    words = sorted({word for text in texts for word, _ in splits.pre_tokenize_str(text)})
    backend = Tokenizer(models.WordLevel(vocab={word: n for n, word in enumerate(words)}))
    backend.pre_tokenizer = splits
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=IM_END,
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=list(SPECIAL_TOKENS),
    )
    tokenizer.chat_template = SYSTEM + CHAT_TEMPLATE
    return tokenizer


def build_backbone(shape: Shape, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """The `transformers` model, made on the device."""
    torch.manual_seed(seed)
    with device:
        return AutoModelForImageTextToText.from_config(_config(shape, build_tokenizer()), dtype=dtype)


def build_judge(backbone: Any, image_tokens: int, **fields: Any) -> Judge:
    """A judge on a backbone of this module, in evaluation mode.

    Args:
        image_tokens: of every image and frame, whatever its size.
        fields: of `JudgeSpec`.
    """
    pixels = side_of(image_tokens) ** 2
    images = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=MERGE)
    images.size = {"shortest_edge": pixels, "longest_edge": pixels}
    spec = JudgeSpec(base_model="random", min_pixels=pixels, max_pixels=pixels, **fields)
    config = backbone.config
    template = get_template(spec.template, spec.kind)
    processor = JudgeProcessor(build_tokenizer(), images, config, spec, template)
    base = BaseModel(folder=Path(), revision=None, weights_sha256="")
    judge = Judge(backbone, build_head(spec, config.text_config.hidden_size), processor, spec, base)
    return judge.to(backbone.device).eval()


def build_judges(
    shape: Shape, image_tokens: int, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> dict[str, Judge]:
    """A judge of each kind on one backbone, by the name of the method: "joint", "late", ..."""
    backbone = build_backbone(shape, device=device, dtype=dtype, seed=seed)
    return {name: build_judge(backbone, image_tokens, **kind) for name, kind in KINDS.items()}


def _config(shape: Shape, tokenizer: Any) -> Qwen2_5_VLConfig:
    token_id = tokenizer.convert_tokens_to_ids
    eighth = shape.text_width // shape.text_heads // 2 // sum(SECTIONS)
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary or len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": shape.text_inner,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "num_key_value_heads": shape.text_kv_heads,
            "bos_token_id": None,
            "eos_token_id": token_id(IM_END),
            "pad_token_id": tokenizer.pad_token_id,
            # Of narrow layers the published 0.02 makes verdicts that are all the same.
            "initializer_range": shape.text_width**-0.5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [eighth * part for part in SECTIONS],
            },
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_width,
            "intermediate_size": shape.vision_inner,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.text_width,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "window_size": WINDOW,
            "fullatt_block_indexes": list(shape.full_layers),
            "initializer_range": shape.vision_width**-0.5,
        },
        image_token_id=token_id(IMAGE_PAD),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=shape.tied,
    )
