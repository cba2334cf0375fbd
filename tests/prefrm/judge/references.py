"""What `transformers` itself makes of a comparison: the family's own processor and its own forward pass.

So its own tokens, its own positions, its own merging of image features and its own attention and masks.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.processing_utils import ProcessorMixin

from prefrm.judge import Judge

LLAVA_SETTINGS = {
    "num_image_tokens": 16,
    "vision_aspect_ratio": "anyres_max_3",
    "vision_feature_select_strategy": "full",
}
# With what a published checkpoint says in its `processor_config.json`.
PROCESSORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "idefics3": (Idefics3Processor, {"image_seq_len": 4}),
    "llava_onevision": (LlavaOnevisionProcessor, LLAVA_SETTINGS | {"video_processor": None}),
    "qwen2_5_vl": (Qwen2_5_VLProcessor, {"video_processor": None}),
    "qwen2_vl": (Qwen2VLProcessor, {"video_processor": None}),
    "qwen3_vl": (Qwen3VLProcessor, {"video_processor": None}),
    "smolvlm": (SmolVLMProcessor, {"image_seq_len": 4, "video_processor": None}),
}


def own_processor(model_type: str, tokenizer: Any, image_processor: Any) -> Any:
    """The family's processor, without what only videos need, such as torchvision."""
    kind, settings = PROCESSORS[model_type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *args: None)
        patch.setattr(processing_smolvlm, "num2words", str)
        return kind(tokenizer=tokenizer, image_processor=image_processor, **settings)


def own_reading(
    judge: Judge, prompt: str, shown: list[Image.Image], **others: Any
) -> tuple[list[int], torch.Tensor]:
    """The tokens of a comparison, and the logits of the whole vocabulary [V] after the last of them."""
    ids, logits_LV = own_logits(judge, prompt, shown, **others)
    return ids, logits_LV[-1]


def own_logits(
    judge: Judge,
    prompt: str,
    shown: list[Image.Image],
    answer: str = "",
    *,
    criterion: str = "",
    texts: Sequence[str] = (),
) -> tuple[list[int], torch.Tensor]:
    """The tokens of a comparison and of the start of an answer, and the logits [L, V] after each of them.

    Of `shown`, the first images are the context; the candidates are the others, or texts.
    """
    template = judge.processor.template
    context = len(shown) - (0 if texts else template.candidates)
    (message,) = template.messages(prompt, context=context, criterion=criterion, texts=texts)
    if judge.family.images_in_text and not template.images_first:
        text = "".join(item.get("text", "<image>") for item in message["content"])
        message["content"] = [{"type": "text", "text": text}]
    tokenizer = judge.processor.tokenizer
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    text += template.answer_prefix + answer
    processor = own_processor(judge.family.model_type, tokenizer, judge.processor.image_processor)
    inputs = processor(text=[text], images=shown or None, return_tensors="pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge.model.get_decoder().config, "_attn_implementation", "eager")
        return inputs["input_ids"][0].tolist(), judge.model(**inputs).logits[0]
