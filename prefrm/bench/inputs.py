"""The forward pass of `transformers` over whole prompts, which prefrm is compared with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from prefrm.judge import Judge, JudgeProcessor, Pair, Segment, Tree, path

__all__ = ["own_attention", "plain_inputs", "plain_sequences"]


def plain_sequences(tree: Tree, pairs: Sequence[Pair]) -> list[list[Segment]]:
    """A causal sequence for each readout of each pair; attentions joint and alone."""
    return [path(tree, answer) for pair in pairs for answer in tree.answers([pair]).values()]


def plain_inputs(
    processor: JudgeProcessor, sequences: Sequence[Sequence[Segment]]
) -> dict[str, torch.Tensor]:
    """Causal sequences, padded on the right, as Qwen's models take them; an image each time it is shown."""
    rows = [torch.cat([segment.ids_L for segment in sequence]) for sequence in sequences]
    ids_BL = pad_sequence(rows, batch_first=True, padding_value=processor.layout.question[-1])
    shown = [image for segment in chain.from_iterable(sequences) for image in segment.images]
    return {
        "input_ids": ids_BL,
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "mm_token_type_ids": (ids_BL == processor.layout.image_token_id).int(),
        "pixel_values": torch.cat([image.pixels for image in shown]),
        "image_grid_thw": torch.tensor([image.grid for image in shown]),
    }


@contextmanager
def own_attention(judge: Judge) -> Iterator[None]:
    """In the block, the language model attends by `transformers`' own function for torch's fused kernels."""
    config: Any = judge.model.get_decoder().config
    before, config._attn_implementation = config._attn_implementation, "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = before
