"""What the forward pass of `transformers` takes, for the methods that prefrm is compared with."""

import torch

from prefrm.judge import JudgeBatch, JudgeProcessor

__all__ = ["plain_inputs"]


def plain_inputs(processor: JudgeProcessor, batch: JudgeBatch) -> dict[str, torch.Tensor]:
    """A batch of causal sequences as Qwen's models take it; an image is there each time it is shown."""
    shown = [image for row in batch.images for image in row]
    return {
        "input_ids": batch.ids_BL,
        "attention_mask": batch.mask,
        "mm_token_type_ids": (batch.ids_BL == processor.layout.image_token_id).int(),
        "pixel_values": torch.cat([image.pixels for image in shown]),
        "image_grid_thw": torch.tensor([image.grid for image in shown]),
    }
