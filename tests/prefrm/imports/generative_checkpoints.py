"""Generative judges as they are published, with tiny sizes and random weights, and a reference.

The reference is the model of `transformers`, asked as the clients of these judges ask it: a user's turn of
image items and one text, and the letters of an answer after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from tests.prefrm.judge.families import TINY, build_tokenizer, save_checkpoint
from tests.prefrm.judge.references import own_processor


@dataclass(frozen=True)
class Conversation:
    """The model and the processor of `transformers`."""

    model: Any
    processor: Any

    @torch.inference_mode()
    def probability(self, images: Sequence[Image.Image], text: str, answer: str, prefix: str = "") -> float:
        """Of saying `answer`, each letter of which is a token, after `prefix`."""
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
        turn = self.processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = self.processor(text=[turn + prefix + answer], images=list(images), return_tensors="pt")
        log_p_LV = self.model(**inputs).logits[0].log_softmax(dim=-1)
        letters = inputs["input_ids"][0, -len(answer) :]
        return float(log_p_LV[-len(answer) - 1 : -1].gather(1, letters[:, None]).sum().exp())


def save_generative(folder: Path, model_type: str = "qwen2_5_vl", *, new_names: bool = False) -> Conversation:
    """A whole repository: weights, configuration, tokenizer and image processor.

    Weights have the names of `transformers` before 4.52, which later versions write as well, or, as training
    loops store them, those that the model itself has today.
    """
    save_checkpoint(folder, model_type)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    if new_names:
        weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tiny = TINY[model_type]
    tokenizer = build_tokenizer(tiny.chat_template, tiny.specials)
    return Conversation(model, own_processor(model_type, tokenizer, tiny.image_processor()))
