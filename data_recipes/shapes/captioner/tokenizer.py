"""The captioner's tokenizer: byte-level BPE with Qwen's special tokens, word splitting and chat format.

Trained on the texts it is given, so that the world's words are one token each, and on all bytes, so
that any other text still has an encoding. Digits stand alone, as in Qwen: "1" and "2" are one token.
"""

from collections.abc import Iterable

from transformers import Qwen2Tokenizer

__all__ = ["CHAT_TEMPLATE", "IMAGE_PAD", "IM_END", "SPECIAL_TOKENS", "VIDEO_PAD", "train_tokenizer"]

IM_END = "<|im_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    IM_END,
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_PAD,
    VIDEO_PAD,
)

# Qwen2.5-VL's template without its default system message, which would cost every prompt a dozen tokens.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'video' -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """A `Qwen2Tokenizer` of at most `vocab_size` tokens, the 256 bytes and the special ones included."""
    tokenizer: Qwen2Tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocab_size, new_special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.eos_token = IM_END
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
