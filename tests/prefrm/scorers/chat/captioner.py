"""A shipped model behind an endpoint: real tokens and real log-probabilities, as vLLM returns them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from data_recipes.shapes.captioner import CHECKPOINT
from tests.prefrm.judge.references import own_processor
from tests.prefrm.scorers.chat.endpoints import choice, shown

NAME = "shapes-captioner"


class Captioner:
    """Answers questions by the forward pass and the greedy decoding of `transformers`."""

    def __init__(self, checkpoint: Path = CHECKPOINT) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        images = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        self.processor = own_processor("qwen2_5_vl", self.tokenizer, images)

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def complete(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The choices of a chat completion, with the log-probabilities that are asked for."""
        turns = [{"role": turn["role"], "content": _items(turn["content"])} for turn in body["messages"]]
        text = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in shown(body)]
        inputs = self.processor(text=[text], images=images or None, return_tensors="pt")
        with torch.inference_mode():
            said = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=body["max_completion_tokens"],
                output_logits=True,
                return_dict_in_generate=True,
            )
        new = said.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        steps = [logits[0].double().log_softmax(-1) for logits in said.logits]
        return [choice(*map(self.tokenizer.decode, new), alternatives=self._alternatives(body, new, steps))]

    def _alternatives(
        self, body: Mapping[str, Any], new: list[int], steps: list[torch.Tensor]
    ) -> dict[int, dict[str, float]] | None:
        if not body.get("logprobs"):
            return None
        found = {}
        for n, (index, step) in enumerate(zip(new, steps, strict=True)):
            named = body.get("logprob_token_ids") or step.topk(body["top_logprobs"]).indices.tolist()
            found[n] = {self.tokenizer.decode(one): float(step[one]) for one in [*named, index]}
        return found


def _items(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [item if item["type"] == "text" else {"type": "image"} for item in content]
