"""Images at the border: from a reference to checked bytes, a digest and decoded pixels.

An image that came from outside is checked before it is decoded: its byte size, then (from the file's
header alone) its format and its pixel count; of the file, a decoder is handed only what the pixels need. This
module fetches nothing over a network.
"""

import hashlib
import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from prefrm.containers import essence
from prefrm.errors import ConfigError, MediaError

__all__ = [
    "DEFAULT_LIMITS",
    "ImageInfo",
    "ImageLimits",
    "check_size",
    "decode",
    "digest",
    "encode_png",
    "probe",
    "read",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an untrusted image may be: bytes as encoded, pixels as decoded, Pillow format names.

    Raises:
        ConfigError: more pixels are allowed than Pillow opens, which is twice `Image.MAX_IMAGE_PIXELS`.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 64 * 10**6
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP")

    def __post_init__(self) -> None:
        if Image.MAX_IMAGE_PIXELS is not None and self.max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"max_pixels is {self.max_pixels}, but Pillow opens no image of more than "
                f"{2 * Image.MAX_IMAGE_PIXELS}; raise PIL.Image.MAX_IMAGE_PIXELS first"
            )


DEFAULT_LIMITS = ImageLimits()
# By EXIF's orientation: how the camera was held, undone.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of a PNG: the signature, and the length and name of the chunk that must come first.
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What the header of an encoded image says: Pillow's format name, width and height in pixels."""

    format: str
    width: int
    height: int


def digest(data: bytes) -> str:
    """The sha256 of an encoded image, in hex: its identity in caches and manifests."""
    return hashlib.sha256(data).hexdigest()


def read(path: str | os.PathLike[str], limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded bytes of an image file, after `probe`. Raises `MediaError` that names the file."""
    file = Path(path)
    try:
        check_size(file.stat().st_size, limits)
        data = file.read_bytes()
        probe(data, limits)
    except MediaError as error:
        raise MediaError(f"{file}: {error}") from error
    # A path with a NUL in it is a ValueError.
    except (OSError, ValueError) as error:
        raise MediaError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return data


def check_size(size: int, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Raise `MediaError` if an encoded image of `size` bytes is too long."""
    if size > limits.max_bytes:
        raise MediaError(f"the image has {size} bytes; the limit is {limits.max_bytes}")


def probe(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageInfo:
    """Check an encoded image without decoding its pixels.

    Raises:
        MediaError: it is empty, too long, of a format not in `limits.formats`, or has too many pixels.
    """
    size = _png_size(data) if "PNG" in limits.formats and len(data) <= limits.max_bytes else None
    if size is not None:
        _check_pixels(*size, limits)
        return ImageInfo(format="PNG", width=size[0], height=size[1])
    image, _ = _opened(data, limits)
    with image:
        return ImageInfo(format=str(image.format), width=image.width, height=image.height)


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image as RGB, upright (EXIF orientation applied), transparency laid over white.

    Raises:
        MediaError: as `probe`, or the pixel data is truncated or corrupt.
    """
    image, turn = _opened(data, limits)
    with image:
        try:
            image.load()
            upright = _eight_bit(image if turn is None else image.transpose(turn))
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            rgba = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        # Pillow's decoders raise many kinds on hostile input; all of them mean "unreadable".
        except Exception as error:
            raise MediaError(f"the image's pixel data is truncated or corrupt: {error}") from error


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes, for images that this process made; a mode that PNG does not have is converted to one it has.

    Raises:
        MediaError: Pillow cannot convert the mode.
    """
    if image.mode not in PNG_MODES:
        mode = "RGBA" if image.has_transparency_data else "RGB"
        try:
            # 32-bit grey holds 16-bit samples, which RGB would clip at 255.
            image = image.convert("I;16" if image.mode == "I" else mode)
        except ValueError as error:
            raise MediaError(f"an image of mode {image.mode} cannot be encoded as PNG: {error}") from error
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _opened(data: bytes, limits: ImageLimits) -> tuple[Image.Image, Image.Transpose | None]:
    """The image, not yet decoded, and what turns it upright."""
    if not data:
        raise MediaError("the image is empty (0 bytes)")
    check_size(len(data), limits)
    needed = essence(data)
    try:
        with warnings.catch_warnings():
            # Pillow warns of a bomb by its own bound; ours is checked just below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(needed.data), formats=limits.formats)
    except UnidentifiedImageError as error:
        raise MediaError(f"the bytes are no {', '.join(limits.formats)} image") from error
    except Exception as error:
        raise MediaError(f"the image's header cannot be read: {error}") from error
    _check_pixels(image.width, image.height, limits)
    return image, TURNS.get(needed.orientation)


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by a PNG's first chunk, at a tenth of what Pillow takes; None if that is not whole."""
    if not data.startswith(PNG_START) or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height) if width and height else None


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise MediaError(f"the image has {width} x {height} pixels; the limit is {limits.max_pixels}")


def _eight_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit grey clips at 255 and so turns most of it white.
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
