"""Image files that nobody means well with, made in code: a server refuses them, or decodes them unharmed.

`HARMLESS` are odd but legal and must decode, `REFUSED` must end in a `MediaError`, and of `BOMBS` it is asked
that they cost neither memory nor time. Each value makes the bytes when called.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

__all__ = ["ALL", "BOMBS", "HARMLESS", "REFUSED", "mutated"]

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
Maker = Callable[[], bytes]


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def png(
    width: int, height: int, pixels: bytes = b"", *, depth: int = 8, kind: int = 2, more: bytes = b""
) -> bytes:
    """A PNG that claims a size, whatever pixels it has."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def laden_png(more: bytes) -> bytes:
    whole = encoded(PICTURE, "PNG")
    return whole[:33] + more + whole[33:]


def laden_jpeg(more: bytes) -> bytes:
    whole = encoded(PICTURE, "JPEG")
    return whole[:2] + more + whole[2:]


def exif_of_overlapping_tags(tags: int = 2000, size: int = 40_000) -> bytes:
    """Each tag claims the same bytes, which a reader that copies them has `tags` times."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size, 8) for tag in range(tags))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(size)


def exif_that_loops() -> bytes:
    """A directory whose next one is itself."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x010E, 2, 1, 0) + struct.pack("<I", 8)


def animated_webp(frames: int, size: int = 8) -> bytes:
    pictures = [Image.new("RGB", (size, size), shade) for shade in ("red", "blue")]
    whole = encoded(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], duration=1)
    start = whole.index(b"ANMF")
    end = start + 8 + int.from_bytes(whole[start + 4 : start + 8], "little")
    frame = whole[start : end + end % 2]
    body = whole[8:start] + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_webp(size: int = 16_383) -> bytes:
    whole = bytearray(animated_webp(1))
    start = whole.index(b"VP8X")
    whole[start + 12 : start + 18] = (size - 1).to_bytes(3, "little") * 2
    return bytes(whole)


def many_scans(scans: int) -> bytes:
    whole = encoded(PICTURE, "JPEG", progressive=True)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * scans + whole[-2:]


def huge_jpeg() -> bytes:
    whole = bytearray(encoded(PICTURE, "JPEG"))
    start = whole.index(b"\xff\xc0")
    whole[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(whole)


def text_that_inflates(kind: bytes, count: int) -> bytes:
    zeros = zlib.compress(bytes(1_000_000), 9)
    middle = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    return laden_png(b"".join(chunk(kind, b"k%d" % n + middle + zeros) for n in range(count)))


def info(size: int) -> PngImagePlugin.PngInfo:
    made = PngImagePlugin.PngInfo()
    made.add_text("comment", "x" * size)
    return made


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY16 = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)

HARMLESS: Mapping[str, Maker] = {
    "png of one bit": lambda: encoded(PICTURE.convert("1"), "PNG"),
    "png with a palette": lambda: encoded(PICTURE.convert("P"), "PNG"),
    "png with a palette and transparency": lambda: encoded(PICTURE.convert("P"), "PNG", transparency=3),
    "png of sixteen bits": lambda: encoded(GREY16, "PNG"),
    "png with grey and alpha": lambda: encoded(PICTURE.convert("LA"), "PNG"),
    "png with long text": lambda: encoded(PICTURE, "PNG", pnginfo=info(500_000)),
    "png with a broken profile": lambda: laden_png(chunk(b"iCCP", b"p\0\0junk")),
    "png with exif that loops": lambda: laden_png(chunk(b"eXIf", exif_that_loops()[6:])),
    "png that is animated": lambda: encoded(
        PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)], duration=9
    ),
    "png and then a zip": lambda: encoded(PICTURE, "PNG") + b"PK\3\4" + bytes(1000),
    "jpeg of grey": lambda: encoded(PICTURE.convert("L"), "JPEG"),
    "jpeg of cmyk": lambda: encoded(PICTURE.convert("CMYK"), "JPEG"),
    "jpeg with a profile": lambda: encoded(PICTURE, "JPEG", icc_profile=PROFILE * 100),
    "jpeg with exif that loops": lambda: laden_jpeg(segment(0xE1, exif_that_loops())),
    "jpeg with several pictures": lambda: encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE] * 3),
    "jpeg and then html": lambda: encoded(PICTURE, "JPEG") + b"<script>alert(1)</script>",
    "jpeg with a comment of html": lambda: laden_jpeg(segment(0xFE, b"<?php system($_GET[0]); ?>")),
    "webp without loss": lambda: encoded(PICTURE, "WEBP", lossless=True),
    "webp with alpha": lambda: encoded(PICTURE.convert("RGBA"), "WEBP"),
    "webp that is animated": lambda: animated_webp(100),
}

REFUSED: Mapping[str, Maker] = {
    "nothing but a signature": lambda: b"\x89PNG\r\n\x1a\n",
    "noise": lambda: random.Random(0).randbytes(4096),
    "a png cut in half": lambda: (whole := encoded(PICTURE, "PNG"))[: len(whole) // 2],
    "a jpeg cut in half": lambda: (whole := encoded(PICTURE, "JPEG", quality=95))[: len(whole) // 2],
    "a webp cut in half": lambda: (whole := encoded(PICTURE, "WEBP"))[: len(whole) // 2],
    "a png without pixels": lambda: png(32, 24),
    "a png of no width": lambda: png(0, 24, bytes(100)),
    "a png of a broken checksum": lambda: (
        encoded(PICTURE, "PNG")[:29] + b"\0\0\0\0" + encoded(PICTURE, "PNG")[33:]
    ),
    "a png of an unknown colour type": lambda: png(32, 24, bytes(10_000), kind=5),
    "a png of 60,000 x 60,000": lambda: png(60_000, 60_000, bytes(10_000_000)),
    "a png of 2^31 x 2^31": lambda: png(2**31 - 1, 2**31 - 1),
    "a png of 16 bits, 8,001 x 8,001": lambda: png(8001, 8001, depth=16, kind=6),
    "a jpeg of 65,000 x 65,000": huge_jpeg,
    "a webp of 16,383 x 16,383": huge_webp,
    "a gif": lambda: encoded(PICTURE, "GIF"),
    "a gif that says it is a png": lambda: b"\x89PNG\r\n\x1a\n" + encoded(PICTURE, "GIF"),
    "a tiff": lambda: encoded(PICTURE, "TIFF"),
    "a bmp": lambda: encoded(PICTURE, "BMP"),
    "a postscript program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(rm) run\n",
    "an svg that names a file": lambda: (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>'
    ),
    "an address": lambda: b"http://169.254.169.254/latest/meta-data",
    "a data address": lambda: b"data:image/png;base64,iVBORw0KGgo=",
    "a path": lambda: b"/etc/passwd",
    "1,700,000 empty png chunks": lambda: laden_png(chunk(b"abCd", b"") * 1_700_000),
    "4,500,000 empty jpeg segments": lambda: laden_jpeg(segment(0xE5, b"") * 4_500_000),
    "4,500,000 jpeg comments": lambda: laden_jpeg(segment(0xFE, b"") * 4_500_000),
    "300,000 webp frames": lambda: animated_webp(300_000),
    "1,000 scans": lambda: many_scans(1000),
}

BOMBS: Mapping[str, Maker] = {
    "png text that inflates to 63 MB": lambda: text_that_inflates(b"zTXt", 63),
    "png international text that inflates to 63 MB": lambda: text_that_inflates(b"iTXt", 63),
    "png profiles that inflate to 63 MB": lambda: text_that_inflates(b"iCCP", 63),
    "png pixels that go on for 100 MB": lambda: png(32, 24, bytes(100_000_000)),
    "png exif whose tags overlap": lambda: laden_png(
        chunk(b"eXIf", exif_of_overlapping_tags(6000, 10**6)[6:])
    ),
    "jpeg exif whose tags overlap": lambda: laden_jpeg(segment(0xE1, exif_of_overlapping_tags())),
    "jpeg exif in 200 segments": lambda: laden_jpeg(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 200),
    "jpeg profile in 250 segments": lambda: laden_jpeg(
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(65_000)) for n in range(1, 251))
    ),
    "webp with 19,000 frames": lambda: animated_webp(19_000),
}

ALL: Mapping[str, Maker] = {**HARMLESS, **REFUSED, **BOMBS}


def mutated(image: bytes, rng: random.Random) -> bytes:
    """The image with a few bytes changed, a piece cut out, doubled, or its end gone."""
    broken = bytearray(image)
    for _ in range(rng.randint(1, 8)):
        place, length = rng.randrange(len(broken) + 1), rng.randint(1, 64)
        match rng.randrange(5):
            case 0:
                broken[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del broken[place : place + length]
            case 2:
                broken[place:place] = broken[place : place + length]
            case 3:
                broken[place : place + 4] = struct.pack(">I", rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1)))
            case 4:
                del broken[max(place, 12) :]
    return bytes(broken)
