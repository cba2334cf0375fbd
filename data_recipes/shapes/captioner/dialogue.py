"""Questions about images, their answers, and the tensors a Qwen2.5-VL is trained on.

A question mixes text and images. Only the answers are learnt. Knows nothing of what the images show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from data_recipes.shapes.captioner.tokenizer import IM_END, IMAGE_PAD

__all__ = ["IGNORED", "Batch", "Collator", "Turn"]

# B turns, T tokens, N image patches, P values of a patch, M images
IGNORED = -100

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question of texts and images, in order, and its answer."""

    question: tuple[str | Image.Image, ...]
    answer: str


class Collator:
    """Makes one padded batch of turns, each a conversation of its own."""

    def __init__(self, tokenizer: Any, processor: Any) -> None:
        self.tokenizer = tokenizer
        self.processor = processor

    def __call__(self, turns: Sequence[Turn]) -> Batch:
        """`input_ids`, `attention_mask`, `mm_token_type_ids`, `labels` [B, T], padded on the right;
        `pixel_values` [N, P]; `image_grid_thw` [M, 3]."""
        images = [part for turn in turns for part in turn.question if not isinstance(part, str)]
        pixels = self.processor(images=images, return_tensors="pt")
        sizes = iter((pixels["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist())
        rows = [self._encoded(turn, sizes) for turn in turns]
        ids_BT = _padded([ids for ids, _ in rows], self.tokenizer.pad_token_id)
        return {
            "input_ids": ids_BT,
            "attention_mask": _padded([[1] * len(ids) for ids, _ in rows], 0),
            "mm_token_type_ids": (ids_BT == self.tokenizer.convert_tokens_to_ids(IMAGE_PAD)).int(),
            "labels": _padded([labels for _, labels in rows], IGNORED),
            **pixels,
        }

    def _encoded(self, turn: Turn, sizes: Iterator[int]) -> tuple[list[int], list[int]]:
        question = self._asked(turn, sizes)
        answer: list[int] = self.tokenizer(turn.answer + IM_END)["input_ids"]
        return question + answer, [IGNORED] * len(question) + answer

    def _asked(self, turn: Turn, sizes: Iterator[int]) -> list[int]:
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in turn.question
        ]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        head, *rest = text.split(IMAGE_PAD)
        whole = head + "".join(IMAGE_PAD * next(sizes) + tail for tail in rest)
        ids: list[int] = self.tokenizer(whole)["input_ids"]
        return ids


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
