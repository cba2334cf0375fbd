"""Tiny checkpoints with random weights: the real classes of each family, some ten thousand parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Config,
    LlavaOnevisionConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from prefrm.judge import JudgeProcessor, JudgeSpec
from prefrm.prompts import Template

QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDEFICS_SPECIALS = (
    "<|pad|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)

# As the published one: a role is a word, and an image at the start of a message needs no space before it.
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<image>{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

# As the published one: all images of a message first, then each of its texts on a new line.
LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for item in message['content'] if item['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}\n{{ item['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Adds an arrow to a message and nothing else.
PLAIN_TEMPLATE = (
    "{% for item in messages[0]['content'] %}"
    "{% if item['type'] == 'image' %}<|image_pad|>{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}->"
)
SHORT = {
    "joint": Template(id="j", turn="P:{prompt} 1:{candidate} 2:{candidate} p:{prompt}?", answers=("1", "2")),
    "late": Template(
        id="l",
        turn="P:{prompt}? I:{candidate} p:{prompt}",
        suffixes=(" one", " two!"),
        answers=("1", "2"),
    ),
    "alone": Template(id="a", turn="P:{prompt} I:{candidate}?"),
}
"""A template for each attention, of few letters: each is a token."""


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """What a tiny checkpoint is made of: `config` takes a tokenizer and the language model's width."""

    config: Callable[[Any, int], PreTrainedConfig]
    image_processor: Callable[[], Any]
    specials: tuple[str, ...] = QWEN_SPECIALS
    chat_template: str = QWEN_TEMPLATE


def build_tokenizer(
    chat_template: str | None = QWEN_TEMPLATE, specials: Sequence[str] = QWEN_SPECIALS
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without merges, with these control tokens: padding, then two of turns."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=specials[2],
        pad_token=specials[0],
        additional_special_tokens=list(specials),
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def _text(tokenizer: Any, width: int, **fields: Any) -> dict[str, Any]:
    """Two layers with heads of 8."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": width // 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    } | fields


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _mrope(**fields: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]} | fields


def _qwen2_5_vl(tokenizer: Any, width: int) -> PreTrainedConfig:
    return Qwen2_5_VLConfig(
        text_config=_text(tokenizer, width, rope_parameters=_mrope()),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
    )


def _qwen2_vl(tokenizer: Any, width: int) -> PreTrainedConfig:
    return Qwen2VLConfig(
        text_config=_text(tokenizer, width, rope_parameters=_mrope()),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": width,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
        },
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
    )


def _qwen3_vl(tokenizer: Any, width: int) -> PreTrainedConfig:
    return Qwen3VLConfig(
        text_config=_text(tokenizer, width, head_dim=8, rope_parameters=_mrope(mrope_interleaved=True)),
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
    )


def _idefics(kind: type[PreTrainedConfig], tokenizer: Any, width: int) -> PreTrainedConfig:
    return kind(
        text_config=_text(tokenizer, width, model_type="llama"),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )


def _idefics_images(kind: type) -> Any:
    """An image token is 8 x 8 pixels, a tile 16 x 16, and an image at most 3 x 3 tiles and itself."""
    return kind(size={"longest_edge": 48}, max_image_size={"longest_edge": 16})


def _llava_onevision(tokenizer: Any, width: int) -> PreTrainedConfig:
    return LlavaOnevisionConfig(
        text_config=_text(tokenizer, width, model_type="qwen2"),
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRIDS,
        # So small that large images are shrunk.
        vision_aspect_ratio="anyres_max_3",
        tie_word_embeddings=True,
    )


def _llava_images() -> Any:
    """An image token is 4 x 4 pixels."""
    return LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=GRIDS)


def _qwen_images() -> Any:
    """An image token is 16 x 16 pixels."""
    return Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=16 * 16, max_pixels=64 * 64)


GRIDS = [[16 * rows, 16 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
TINY: dict[str, Tiny] = {
    "qwen2_vl": Tiny(config=_qwen2_vl, image_processor=_qwen_images),
    "qwen2_5_vl": Tiny(config=_qwen2_5_vl, image_processor=_qwen_images),
    "qwen3_vl": Tiny(config=_qwen3_vl, image_processor=_qwen_images),
    "llava_onevision": Tiny(
        config=_llava_onevision,
        image_processor=_llava_images,
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
        chat_template=LLAVA_TEMPLATE,
    ),
    "idefics3": Tiny(
        config=partial(_idefics, Idefics3Config),
        image_processor=partial(_idefics_images, Idefics3ImageProcessorPil),
        specials=IDEFICS_SPECIALS,
        chat_template=IDEFICS_TEMPLATE,
    ),
    "smolvlm": Tiny(
        config=partial(_idefics, SmolVLMConfig),
        image_processor=partial(_idefics_images, SmolVLMImageProcessorPil),
        specials=IDEFICS_SPECIALS,
        chat_template=IDEFICS_TEMPLATE,
    ),
}


def build_processor(
    template: Template, model_type: str = "qwen2_5_vl", tokenizer: Any = None, **fields: Any
) -> JudgeProcessor:
    """The processor of a judge that is asked with `template`, without a model; `fields` are of its spec."""
    tiny = TINY[model_type]
    tokenizer = tokenizer or build_tokenizer(tiny.chat_template, tiny.specials)
    spec = JudgeSpec(
        base_model="tiny",
        head="scalar" if template.attention == "alone" else "verdict",
        attention=template.attention,
        ties=template.ties,
        **fields,
    )
    return JudgeProcessor(tokenizer, tiny.image_processor(), tiny.config(tokenizer, 32), spec, template)


def save_checkpoint(folder: Path, model_type: str = "qwen2_5_vl", width: int = 32) -> Path:
    """A checkpoint as `save_pretrained` makes it: weights, configuration, tokenizer, image processor."""
    tiny = TINY[model_type]
    tokenizer = build_tokenizer(tiny.chat_template, tiny.specials)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(tiny.config(tokenizer, width))
    with torch.no_grad():
        # The default initialization is so small that every verdict is 0.5; a judge needs opinions.
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim > 1 else parameter
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tiny.image_processor().save_pretrained(folder)
    return folder
