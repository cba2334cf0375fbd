"""Pillow's resampling and an image processor's normalization, with a gradient in the pixels.

Pillow resizes one axis after the other, each by a weighted sum that is rounded to 8 bits. The weights are the
same here; the sum is not rounded but clamped to what rounds to 0 .. 255. So a pixel differs from Pillow's by
at most half a level for each axis, the first half times the sum of the second axis's absolute weights (1.25
of bicubic, 1.55 of Lanczos). In Pillow's floating-point mode both agree to float32's precision.

Shapes: C channels, H height, W width, K tiles, S side of a tile, N pixels after and M before.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from prefrm.errors import ConfigError
from prefrm.winmatrix import Doubles

__all__ = ["HALF_LEVEL", "cut_tiles", "normalize", "resize"]

HALF_LEVEL = 0.5 / 255
"""What rounding to 8 bits changes at most, of a pixel in [0, 1]."""
# Of the weights, which take 16 MB for 1,456 pixels after and before.
KEPT_WEIGHTS = 8
KEPT_ORDERS = 64


def _triangle(x: Doubles) -> Doubles:
    return np.maximum(1 - x, 0)


def _bicubic(x: Doubles) -> Doubles:
    """Keys 1981, with a = -1/2."""
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((5 - x) * x - 8) * x / 2 + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Doubles) -> Doubles:
    """With three lobes."""
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


FILTERS: Mapping[int, Callable[[Doubles], Doubles]] = {
    Resampling.BILINEAR: _triangle,
    Resampling.BICUBIC: _bicubic,
    Resampling.LANCZOS: _lanczos,
}
"""From distances >= 0 in pixels to weights, by Pillow's number of the filter."""


def resize(image_CHW: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """The image at a height and width, as `PIL.Image.resize`; in [0, 1] but for half a level.

    Args:
        image_CHW: in [0, 1].
        size: height and width.
        resample: Pillow's number of the filter.

    Raises:
        ConfigError: the filter has no gradient here.
    """
    if resample not in FILTERS:
        names = ", ".join(Resampling(number).name for number in FILTERS)
        raise ConfigError(
            f"the image processor resizes with filter {resample}, which has no gradient here; set its "
            f"resample to one of {names}"
        )
    height, width = image_CHW.shape[1:]
    return _resized(image_CHW, size, resample, _axes((height, width), size, resample))


def _resized(
    image_CHW: torch.Tensor, size: tuple[int, int], resample: int, axes: tuple[int, int]
) -> torch.Tensor:
    """The same with the order of the axes given, 1 being that of rows."""
    for axis in axes:
        before, after = image_CHW.shape[axis], size[axis - 1]
        if before != after:
            weights_NM = torch.from_numpy(_weights(after, before, resample)).to(image_CHW)
            image_CHW = weights_NM @ image_CHW if axis == 1 else image_CHW @ weights_NM.T
            # Half a level more than [0, 1]: white that a sum leaves at 1.0000001 keeps its gradient.
            image_CHW = image_CHW.clamp(-HALF_LEVEL, 1 + HALF_LEVEL)
    return image_CHW


@lru_cache(maxsize=KEPT_ORDERS)
def _axes(before: tuple[int, int], after: tuple[int, int], resample: int) -> tuple[int, int]:
    """The order in which the installed Pillow resizes the axes, tried with noise of black and white.

    It matters where the first sum is clipped. Since Pillow 13 the rows come first in some reductions.
    """
    noise_HW = 255 * np.random.default_rng(0).integers(0, 2, before, dtype=np.uint8)
    expected_HW = np.asarray(Image.fromarray(noise_HW).resize(after[::-1], resample), dtype=np.float32)

    def difference(axes: tuple[int, int]) -> float:
        found_1HW = _resized(torch.from_numpy(noise_HW)[None] / 255, after, resample, axes)
        return float(np.abs(255 * found_1HW[0].numpy() - expected_HW).mean())

    return min(((2, 1), (1, 2)), key=difference)


@lru_cache(maxsize=KEPT_WEIGHTS)
def _weights(after: int, before: int, resample: int) -> Doubles:
    """Weights [N, M] of each pixel after in those before; each row's sum is 1.

    Of a reduction the filter is as wide as the pixels after are, which is antialiasing.
    """
    scale = before / after
    centers_N = (np.arange(after) + 0.5) * scale
    distances_NM = np.abs(np.arange(before) + 0.5 - centers_N[:, None]) / max(scale, 1.0)
    weights_NM = FILTERS[resample](distances_NM)
    return np.asarray(weights_NM / weights_NM.sum(axis=1, keepdims=True))


def normalize(image_processor: Any, images: torch.Tensor) -> torch.Tensor:
    """Images [..., C, H, W] in [0, 1], rescaled and normalized as by the image processor."""
    mean, std = (
        torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
        for values in (image_processor.image_mean, image_processor.image_std)
    )
    normalized: torch.Tensor = (images * (255 * image_processor.rescale_factor) - mean) / std
    return normalized


def cut_tiles(image_CHW: torch.Tensor, side: int) -> torch.Tensor:
    """The image as tiles [K, C, S, S], row by row; its sides are multiples of `side`."""
    height, width = image_CHW.shape[1:]
    assert not math.gcd(height, width) % side
    tiles: torch.Tensor = image_CHW.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)
