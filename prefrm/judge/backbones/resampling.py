"""Image processors on tensors: Pillow's resampling, cutting into tiles and normalization, differentiable.

Pillow rounds to 8 bits after each of its two passes, horizontal and vertical, and this module does not:
after a resize, a pixel differs by about one level of 255.

Shapes: C = 3 channels, H height, W width, N new and O old pixels along a side, K tiles, S pixels along their
sides.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from prefrm.judge.transfers import to_device

__all__ = ["cut_tiles", "normalized", "resized"]

# Sides and filters whose matrices are kept: a policy draws images of few sizes.
KEPT_MATRICES = 16
LEVELS = 255


def resized(pixels_CHW: torch.Tensor, height: int, width: int, resample: int) -> torch.Tensor:
    """Pixels [C, height, width] in 0..1, as `PIL.Image.Image.resize` makes them with that filter."""
    if width != pixels_CHW.shape[2]:
        across_NO = to_device(_filter_matrix(pixels_CHW.shape[2], width, resample), pixels_CHW.device)
        # Cubic filters overshoot, and Pillow clips after each pass.
        pixels_CHW = (pixels_CHW @ across_NO.T).clamp(0, 1)
    if height != pixels_CHW.shape[1]:
        down_NO = to_device(_filter_matrix(pixels_CHW.shape[1], height, resample), pixels_CHW.device)
        pixels_CHW = (down_NO @ pixels_CHW).clamp(0, 1)
    return pixels_CHW


@lru_cache(maxsize=KEPT_MATRICES)
def _filter_matrix(old: int, new: int, resample: int) -> torch.Tensor:
    """A filter along one side, float32 [N, O]: what Pillow makes of the identity matrix, without rounding."""
    identity_OO = Image.fromarray(np.eye(old, dtype=np.float32))
    return torch.from_numpy(np.array(identity_OO.resize((old, new), Image.Resampling(resample))))


def cut_tiles(pixels_CHW: torch.Tensor, side: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Square tiles [K, C, S, S] row by row, and how many rows and columns there are."""
    tiles = pixels_CHW.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(1, 3, 0, 2, 4)
    return tiles.flatten(0, 1), (tiles.shape[0], tiles.shape[1])


def normalized(image_processor: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [..., C, H, W] in 0..1, rescaled and normalized by the settings of an image processor."""
    factor = image_processor.rescale_factor if image_processor.do_rescale else 1
    pixels = pixels * (LEVELS * factor)
    if not image_processor.do_normalize:
        return pixels
    mean, std = (
        pixels.new_tensor(x)[:, None, None] for x in (image_processor.image_mean, image_processor.image_std)
    )
    return (pixels - mean) / std
