"""Media at the boundary: from a reference to checked bytes, a digest and, of images, decoded pixels.

An image from outside is checked before it is decoded: its byte size, then (from the file's header alone) its
format and its pixel count; a decoder is handed only the parts of the file that the pixels need. However an
image enters, as bytes, as a file or as a Pillow image, `PIL.ImageOps.exif_transpose` turns it upright. This
module fetches nothing over a network. How a video is checked and decoded is in `prefrm.video`.
"""

import hashlib
import io
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from prefrm.containers import UPRIGHT, Essence, essence, is_video, other_format
from prefrm.errors import ConfigError, MediaError
from prefrm.modes import check_samples, for_png, to_rgb

__all__ = [
    "CONVERTED_FORMATS",
    "DEFAULT_LIMITS",
    "MEDIA_SUFFIXES",
    "SNIFFED_BYTES",
    "URL",
    "ImageInfo",
    "ImageLimits",
    "VideoLimits",
    "check_size",
    "convert",
    "decode",
    "digest",
    "encode_png",
    "limits_of",
    "probe",
    "read",
    "read_bytes",
    "upright",
    "verify",
]

CONVERTED_FORMATS = ("GIF", "BMP", "TIFF", "AVIF")
"""Formats that `read` converts to PNG. A server refuses them: each decoder is one more to attack."""

MEDIA_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".mp4", ".mov", ".webm", ".mkv"),
)
"""Endings of the names of files that are images or videos."""

URL = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)
"""Matches a URL given as an image path. `Path` leaves one slash of two; a single letter is a drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """Bounds on an untrusted video.

    Attributes:
        max_bytes: as encoded.
        max_seconds: how long it may last.
        max_frames: number of frames, all of which may have to be decoded to reach the sampled ones.
        max_pixels: of one frame.
        max_decoded_pixels: of all frames together: the measure of the time to decode them.
        formats: containers, "MP4" (QuickTime as well) and "WEBM" (Matroska as well).
        codecs: FFmpeg's names.
    """

    max_bytes: int = 64 * 2**20
    max_seconds: float = 120.0
    max_frames: int = 3_600
    max_pixels: int = 10 * 10**6
    max_decoded_pixels: int = 4 * 10**9
    formats: tuple[str, ...] = ("MP4", "WEBM")
    codecs: tuple[str, ...] = ("h264", "hevc", "mpeg4", "vp8", "vp9")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Bounds on an untrusted image: bytes as encoded, pixels as decoded, Pillow format names; and on a video
    in its place.

    Raises:
        ConfigError: more pixels are allowed than Pillow opens, which is twice `Image.MAX_IMAGE_PIXELS`.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 64 * 10**6
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP")
    video: VideoLimits = VideoLimits()

    def __post_init__(self) -> None:
        if Image.MAX_IMAGE_PIXELS is not None and self.max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"max_pixels is {self.max_pixels}, but Pillow opens no image of more than "
                f"{2 * Image.MAX_IMAGE_PIXELS}; raise PIL.Image.MAX_IMAGE_PIXELS first"
            )


DEFAULT_LIMITS = ImageLimits()
SNIFFED_BYTES = 1024  # of a file, by which a video is told
SHOWN = 60  # characters of a URL that a message quotes
# Of a PNG: the signature, and the length and name of the chunk that must come first.
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# Side of the blocks of a JPEG, of which a decoder can make one pixel each.
JPEG_BLOCK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """The header of an encoded image: Pillow's format name, width and height in pixels, not yet turned.

    `scans` is how often a decoder passes over all pixels: 1, or the number of scans of a JPEG.
    """

    format: str
    width: int
    height: int
    scans: int = 1

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def held_pixels(self) -> int:
        """Pixels that a decoder holds at once: the measure of its memory."""
        return self.pixels

    @property
    def decoded_pixels(self) -> int:
        """Pixels that a decoder computes, each counted once for every scan: the measure of its time."""
        return self.pixels * self.scans


class _UnknownFormatError(MediaError):
    """The first bytes are of no image."""


def digest(data: bytes | str) -> str:
    """The sha256 of encoded data or of a text in UTF-8, in hex: its identity in caches and manifests."""
    encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return hashlib.sha256(encoded).hexdigest()


def read(path: str | os.PathLike[str], limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded bytes of an image or video file that a person names, an image after `probe`.

    A GIF, BMP, TIFF or AVIF file is converted to PNG without loss: its first frame, upright, over white. Of a
    video, only the byte size is checked.

    Raises:
        MediaError: it cannot be read, or is beyond the limits, before or after conversion; names the file.
    """
    data = read_bytes(path, limits)
    if is_video(data):
        return data
    try:
        data = convert(data, limits)
        probe(data, limits)
    except _UnknownFormatError as error:
        raise MediaError(
            f"{path}: {error} and not a valid {' or '.join(limits.video.formats)} video"
        ) from error
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    return data


def convert(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """An encoded GIF, BMP, TIFF or AVIF as `read` converts it; anything else as it is, and not checked.

    Raises:
        MediaError: what is to be converted is unreadable or beyond the limits.
    """
    kind = other_format(data)
    if kind not in CONVERTED_FORMATS or kind in limits.formats:
        return data
    return _converted(data, replace(limits, formats=(kind,)))


def _converted(data: bytes, limits: ImageLimits) -> bytes:
    if limits.formats == ("AVIF",) and not ("avif" in features.modules and features.check("avif")):
        raise MediaError(
            "the installed Pillow does not support AVIF; install 11.3 or newer: pip install --upgrade pillow"
        )
    with warnings.catch_warnings():
        # Pillow warns of each damaged tag of a TIFF; none of them is needed.
        warnings.simplefilter("ignore", UserWarning)
        return encode_png(decode(data, limits))


def read_bytes(path: str | os.PathLike[str], limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The content of a regular file within the limit of its kind. Raises `MediaError`, which names it."""
    file = Path(path)
    try:
        found = file.stat()
        # A device has no end, and a pipe may never be written to.
        if not stat.S_ISREG(found.st_mode):
            raise MediaError("not a regular file")
        with file.open("rb") as opened:
            start = opened.read(SNIFFED_BYTES)
            check_size(found.st_size, limits_of(start, limits))
            return start + opened.read()
    except MediaError as error:
        raise MediaError(f"{file}: {error}") from error
    # A path with a NUL in it is a ValueError.
    except (OSError, ValueError) as error:
        if URL.match(str(path)):
            raise MediaError(
                f"{str(path)[:SHOWN]} is a URL; nothing is fetched: download the image and give its path"
            ) from error
        raise MediaError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def limits_of(start: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageLimits | VideoLimits:
    """The limits of the kind of a file, by its first `SNIFFED_BYTES`."""
    return limits.video if is_video(start) else limits


def check_size(size: int, limits: ImageLimits | VideoLimits = DEFAULT_LIMITS) -> None:
    """Raise `MediaError` if an encoded image or video of `size` bytes is too long."""
    if size > limits.max_bytes:
        kind = "video" if isinstance(limits, VideoLimits) else "image"
        raise MediaError(f"the {kind} has {size} bytes; the limit is {limits.max_bytes}")


def probe(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageInfo:
    """Check an encoded image without decoding its pixels.

    Raises:
        MediaError: it is empty, too long, of a format not in `limits.formats`, or has too many pixels.
    """
    size = _png_size(data) if "PNG" in limits.formats and len(data) <= limits.max_bytes else None
    if size is not None:
        _check_pixels(*size, limits)
        return ImageInfo(format="PNG", width=size[0], height=size[1])
    image, needed = _opened(data, limits)
    with image:
        return ImageInfo(format=str(image.format), width=image.width, height=image.height, scans=needed.scans)


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image as RGB, upright (as `PIL.ImageOps.exif_transpose` turns it), transparency laid over white.

    Raises:
        MediaError: as `probe`, or the pixel data is truncated or corrupt, or out of the range of its mode.
    """
    image, needed = _opened(data, limits)
    with image, _pixel_errors():
        return _rgb(image, needed.orientation)


def verify(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Raise as `decode` does, in half of its time: a JPEG is read to its end, but decoded at an eighth of its
    size.

    Raises:
        MediaError: as `decode`.
    """
    image, needed = _opened(data, limits)
    with image, _pixel_errors():
        if image.format == "JPEG":
            image.draft(None, (max(1, image.width // JPEG_BLOCK), max(1, image.height // JPEG_BLOCK)))
            image.load()
        else:
            _rgb(image, needed.orientation)


def encode_png(image: Image.Image, *, level: int = 6) -> bytes:
    """PNG bytes of an image of any Pillow mode, upright (as `PIL.ImageOps.exif_transpose` turns it).

    A mode that PNG does not have is converted to one that shows the same picture. `level` is zlib's, 0 to 9.

    Raises:
        MediaError: there are no pixels, they cannot be read, or samples of mode I or F are out of range.
    """
    if 0 in image.size:
        raise MediaError(f"the image has no pixels: it is {image.width} x {image.height}")
    with _pixel_errors():
        image = _upright(image)
    check_samples(image)
    buffer = io.BytesIO()
    # No judge reads a colour profile, and in RGB one of CMYK is wrong.
    for_png(image).save(buffer, format="PNG", compress_level=level, icc_profile=None)
    return buffer.getvalue()


def upright(data: bytes) -> bytes:
    """The encoded image or, if its metadata turns it, an upright PNG: for readers that ignore metadata.

    Raises:
        MediaError: its metadata turns it and it cannot be decoded.
    """
    return data if essence(data).orientation in (None, UPRIGHT) else encode_png(decode(data))


def _rgb(image: Image.Image, orientation: int | None) -> Image.Image:
    """The picture of an opened file, decoded; `orientation` is that of its `Essence`."""
    # Looking for metadata that was left out takes a tenth of the time of a small image.
    if orientation == UPRIGHT:
        image.load()
    else:
        if orientation is not None:
            image.getexif()[ExifTags.Base.Orientation] = orientation
        image = _upright(image)
    return to_rgb(image)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        if image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) == UPRIGHT:
            return image
        return ImageOps.exif_transpose(image)
    # Pillow raises many kinds on damaged metadata, which says nothing of how the image is to be turned.
    except Exception:
        return image


@contextmanager
def _pixel_errors() -> Iterator[None]:
    """Pillow's decoders raise many kinds on hostile input; all of them mean "unreadable"."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"the image's pixel data is truncated or corrupt: {error}") from error


def _opened(data: bytes, limits: ImageLimits) -> tuple[Image.Image, Essence]:
    """The image, not yet decoded, and what its file was reduced to."""
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
        raise _refusal(data, limits) from error
    except Exception as error:
        raise MediaError(f"the image's header cannot be read: {error}") from error
    _check_pixels(image.width, image.height, limits)
    return image, needed


def _refusal(data: bytes, limits: ImageLimits) -> MediaError:
    kind, allowed = other_format(data), f"not a valid {' or '.join(limits.formats)} image"
    if kind and kind not in limits.formats:
        return MediaError(f"{allowed} but {kind}; convert it to PNG")
    return MediaError(allowed) if kind else _UnknownFormatError(allowed)


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by a PNG's first chunk, at a tenth of what Pillow takes; None if that is not whole."""
    if not data.startswith(PNG_START) or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height) if width and height else None


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise MediaError(f"the image has {width} x {height} pixels; the limit is {limits.max_pixels}")
