"""The forward pass of `transformers` over whole prompts, for the methods that prefrm is compared with."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from prefrm.judge import Judge, Pair, Segment, Tree, path

__all__ = ["Sequences", "own_attention", "plain_inputs", "sequences"]

Sequences = list[list[Segment]]
"""Whole prompts, each a causal sequence as its segments in reading order."""


def sequences(tree: Tree, pairs: Iterable[Pair]) -> Sequences:
    """The whole prompts of comparisons in order: of a joint judge one each, of a scalar judge two.

    Args:
        tree: of a joint judge, or of one that reads candidates alone.
        pairs: that it can read.
    """
    return [path(tree, answer) for pair in pairs for answer in tree.answers([pair]).values()]


def plain_inputs(rows: Sequence[Sequence[Segment]]) -> dict[str, torch.Tensor]:
    """A batch of sequences for Qwen's models, padded on the right, with every image that they show."""
    ids = [torch.cat([segment.ids_L for segment in row]) for row in rows]
    shown = [image for row in rows for segment in row for image in segment.images]
    ids_BL = pad_sequence(ids, batch_first=True)
    mask_BL = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    image_ids = {index for image in shown for index in image.ids}
    return {
        "input_ids": ids_BL,
        "attention_mask": mask_BL,
        "mm_token_type_ids": torch.isin(ids_BL, torch.tensor(list(image_ids))).int(),
        "pixel_values": torch.cat([image.pixels for image in shown]),
        "image_grid_thw": torch.tensor([image.grid for image in shown]),
    }


@contextmanager
def own_attention(judge: Judge) -> Iterator[None]:
    """In the block, the language model attends as `transformers` does by default, and not through prefrm."""
    config: Any = judge.model.get_decoder().config
    before, config._attn_implementation = config._attn_implementation, "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = before
