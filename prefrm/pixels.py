"""Pillow images, arrays and tensors, encoded as PNG. Needs no torch: a tensor is told by its methods.

Shapes: N images, C = 3 channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm.errors import ConfigError, MediaError
from prefrm.media import encode_png

__all__ = ["encode_image", "split_images"]

CHANNELS = 3
# For images on their way to a judge: a photo of 1,024 pixels takes 0.07 s, a quarter of level 6, for 7% more
# bytes. Level 0 takes 0.03 s, but doubles the bytes: sending a group of 8, 24 MiB, costs five times the CPU,
# and from 2,650 pixels on an image is beyond the 20 MiB that a server takes.
PNG_LEVEL = 1


def split_images(images: Any) -> list[Any]:
    """The images of a batch, each as `encode_image` takes it.

    Args:
        images: a tensor or an array, NCHW or NHWC; or a sequence of single images.

    Raises:
        ConfigError: it is neither, or has not four dimensions.
    """
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return list(images)
    if (array := _array(images)) is None:
        raise ConfigError(f"images are a sequence, an array or a tensor; received {type(images).__name__}")
    if array.ndim != 4:
        raise ConfigError(f"a batch of images has four dimensions; received the shape {list(array.shape)}")
    return list(array)


def encode_image(image: Any) -> bytes:
    """PNG bytes of an image, which keep all of its 8 bits.

    Args:
        image: a Pillow image of any mode; a tensor or an array, CHW or HWC, of uint8 or of floats in [0, 1],
            which are rounded as by flow_grpo and ddpo-pytorch; or encoded bytes, which are returned as they
            are.

    Raises:
        ConfigError: it is of another type, or its shape is not that of one image.
        MediaError: its pixels cannot be read, are NaN or infinite, or are outside [0, 1].
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return encode_png(image, level=PNG_LEVEL)
    if (array := _array(image)) is None:
        raise ConfigError(
            "an image is a Pillow image, an array, a tensor or encoded bytes; "
            f"received {type(image).__name__}"
        )
    return encode_png(Image.fromarray(_pixels(array)), level=PNG_LEVEL)


def _array(value: Any) -> npt.NDArray[Any] | None:
    """The array of an array or a torch tensor; None if it is neither."""
    if hasattr(value, "detach"):
        # numpy has no bfloat16.
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return value if isinstance(value, np.ndarray) else None


def _pixels(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C]."""
    if np.issubdtype(image.dtype, np.floating):
        image = _rounded(_channels_last(image).astype(np.float32))
    elif image.dtype != np.uint8:
        raise ConfigError(f"pixels are uint8 in [0, 255] or floats in [0, 1]; received {image.dtype}")
    else:
        image = _channels_last(image)
    return np.ascontiguousarray(image)


def _channels_last(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    first, last = (image.ndim == 3 and image.shape[axis] == CHANNELS for axis in (0, -1))
    if first and last:
        raise ConfigError(
            f"an image of the shape {list(image.shape)} is [3, H, W] or [H, W, 3]; pass a Pillow image"
        )
    if not (first or last) or image.size == 0:
        raise ConfigError(
            "an image is [3, H, W] or [H, W, 3], of uint8 or of floats in [0, 1]; "
            f"received {image.dtype} {list(image.shape)}"
        )
    return np.moveaxis(image, 0, 2) if first else image


def _rounded(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all():
        raise MediaError("an image has a pixel that is NaN or infinite")
    levels = (image * 255).round()
    # Rounding errors about 0 and 1 change no level.
    if levels.min() < 0 or levels.max() > 255:
        raise MediaError(
            f"pixels as floats are in [0, 1]; received values from {low:g} to {high:g}; scale them first"
        )
    return levels.astype(np.uint8)
