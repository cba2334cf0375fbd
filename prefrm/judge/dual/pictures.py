"""An image as the square of pixels that an image encoder reads, from Pillow or as a tensor.

"crop" is that of `transformers`' CLIP image processor and torchvision: Pillow resizes the shorter side, and
the center is cut out. "letterbox" is that of HPSv2 (tgxs002/HPSv2, `ResizeMaxSize`), which resizes a tensor.

Shapes: H height, W width, S side of the square.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad

from prefrm.errors import MediaError
from prefrm.judge.backbones.resampling import resize
from prefrm.manifest import ImageFit

__all__ = ["prepare_image", "prepare_pixels"]

MOST_ASPECT = 200
"""Of the longer side to the shorter one, as for the Qwen families. Resizing the shorter side of an image of
one row would take the memory of the square of its width."""


def prepare_image(image: Image.Image, fit: ImageFit) -> torch.Tensor:
    """float32 [3, S, S], normalized, of an RGB image.

    Raises:
        MediaError: one side is more than `MOST_ASPECT` times as long as the other.
    """
    _check_aspect(image.height, image.width)
    if fit.fit != "letterbox":
        height, width = _resized(image.height, image.width, fit)
        image = image.resize((width, height), fit.resample)
    pixels_3HW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return _finished(pixels_3HW, fit)


def prepare_pixels(pixels_3HW: torch.Tensor, fit: ImageFit) -> torch.Tensor:
    """The same of pixels in [0, 1], with a gradient.

    Pillow rounds to 8 bits after each axis, this does not: a pixel differs by half a level for each axis, as
    in `prefrm.judge.backbones.resampling`. A letterbox is the same.

    Raises:
        ConfigError: the filter has no gradient here.
        MediaError: as `prepare_image`.
    """
    height, width = pixels_3HW.shape[1:]
    _check_aspect(height, width)
    if fit.fit != "letterbox":
        pixels_3HW = resize(pixels_3HW, _resized(height, width, fit), fit.resample)
    return _finished(pixels_3HW, fit)


def _finished(pixels_3HW: torch.Tensor, fit: ImageFit) -> torch.Tensor:
    """The square of a resized image, normalized."""
    square = _letterbox(pixels_3HW, fit.side) if fit.fit == "letterbox" else _center(pixels_3HW, fit)
    mean, std = (
        torch.tensor(values, dtype=square.dtype, device=square.device)[:, None, None]
        for values in (fit.mean, fit.std)
    )
    return (square - mean) / std


def _check_aspect(height: int, width: int) -> None:
    if max(height, width) > MOST_ASPECT * min(height, width):
        raise MediaError(
            f"the image has {width} x {height} pixels; one side may be {MOST_ASPECT} times as long as the "
            "other at most"
        )


def _resized(height: int, width: int, fit: ImageFit) -> tuple[int, int]:
    """Height and width after resizing."""
    if fit.fit == "stretch":
        return fit.side, fit.side
    longer = int(fit.side * max(height, width) / min(height, width))
    return (longer, fit.side) if height > width else (fit.side, longer)


def _center(pixels_3HW: torch.Tensor, fit: ImageFit) -> torch.Tensor:
    height, width = (_margin(side - fit.side, fit) for side in pixels_3HW.shape[1:])
    return pixels_3HW[:, height : height + fit.side, width : width + fit.side]


def _margin(left_over: int, fit: ImageFit) -> int:
    # `round` takes the even neighbour of a half, as torchvision does.
    return left_over // 2 if fit.center == "down" else round(left_over / 2)


def _letterbox(pixels_3HW: torch.Tensor, side: int) -> torch.Tensor:
    height, width = pixels_3HW.shape[1:]
    scale = side / max(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    if (new_height, new_width) != (height, width):
        # Antialiased, as torchvision resizes tensors since 0.17; it clamps integers alone.
        pixels_3HW = interpolate(
            pixels_3HW[None], (new_height, new_width), mode="bicubic", align_corners=False, antialias=True
        )[0]
    above, left = (side - new_height) // 2, (side - new_width) // 2
    return pad(pixels_3HW, (left, side - new_width - left, above, side - new_height - above))
