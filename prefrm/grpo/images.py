"""Images as trainers hold them, encoded for a scorer. Needs no torch: a tensor is known by what it can do.

Shapes: N images, C = 3 channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm.errors import ConfigError, MediaError
from prefrm.media import encode_png

__all__ = ["encode_image", "encode_images"]

CHANNELS = 3


def encode_images(images: Any) -> list[bytes]:
    """Each image of a batch as PNG bytes, which loses nothing of 8 bits.

    Args:
        images: a tensor or an array, float NCHW in [0, 1] or uint8 NHWC, as reward functions of ddpo and
            flow_grpo get them; or a sequence of what `encode_image` takes.

    Raises:
        ConfigError: it is of another shape or type.
        MediaError: a pixel is NaN.
    """
    if isinstance(images, Sequence):
        return [encode_image(image) for image in images]
    array = _array(images)
    if array.ndim != 4:
        raise ConfigError(f"a batch of images has four dimensions; received the shape {list(array.shape)}")
    return [encode_image(image) for image in array]


def encode_image(image: Any) -> bytes:
    """PNG bytes of a Pillow image or of a tensor or an array: float CHW in [0, 1], uint8 HWC or uint8 CHW.

    Bytes are taken for an encoded image and returned as they are. Raises as `encode_images`.
    """
    if isinstance(image, bytes):
        return image
    return encode_png(image if isinstance(image, Image.Image) else Image.fromarray(_pixels(_array(image))))


def _array(images: Any) -> npt.NDArray[Any]:
    if hasattr(images, "detach"):
        # A torch tensor; numpy has no bfloat16.
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if not isinstance(images, np.ndarray):
        raise ConfigError(f"images are tensors, arrays or Pillow images; received {type(images).__name__}")
    return images


def _pixels(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C]; floats are rounded as ddpo and flow_grpo do it themselves."""
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim == 3 and image.shape[0] == CHANNELS and (floating or image.shape[2] != CHANNELS):
        image = np.moveaxis(image, 0, 2)
    elif image.ndim != 3 or image.shape[2] != CHANNELS or floating:
        raise ConfigError(
            f"an image is float [3, H, W] in [0, 1], uint8 [H, W, 3] or uint8 [3, H, W]; "
            f"received {image.dtype} {list(image.shape)}"
        )
    if not floating:
        if image.dtype != np.uint8:
            raise ConfigError(f"pixels are uint8 in [0, 255] or floats in [0, 1]; received {image.dtype}")
        return np.ascontiguousarray(image)
    if np.isnan(image).any():
        raise MediaError("an image has a pixel that is NaN")
    return np.ascontiguousarray((image * 255).round().clip(0, 255).astype(np.uint8))
