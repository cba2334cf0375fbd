"""What is left of an image file has the same pixels, turned the same way, and none of the metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from prefrm.containers import MAX_PARTS, MAX_SCANS, essence, is_video, video_format
from prefrm.errors import MediaError
from prefrm.media import decode, probe

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    return exif


def by_pillow(data):
    """What Pillow makes of the whole file, metadata and all."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_is_that_of_exif(format, orientation):
    data = encoded(PIXELS, format, exif=turned(orientation))
    assert np.array_equal(np.asarray(decode(data)), by_pillow(data))
    assert essence(data).orientation == (orientation if 1 <= orientation <= 8 else 1)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_without_exif_it_is_that_of_xmp(format):
    data = encoded(PIXELS, format, xmp=XMP)
    assert np.array_equal(np.asarray(decode(data)), by_pillow(data))
    assert essence(data).orientation == 6
    both = encoded(PIXELS, format, xmp=XMP, exif=turned(3))
    assert np.array_equal(np.asarray(decode(both)), by_pillow(both))
    assert essence(both).orientation == 3


def test_the_other_byte_order_is_read_too():
    big = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 8, 0, 0)
    data = encoded(PIXELS, "JPEG", exif=big)
    assert essence(data).orientation == 8
    assert np.array_equal(np.asarray(decode(data)), by_pillow(data))


def test_png_keeps_its_transparency_and_nothing_else():
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a secret")
    text.add_itxt("more", "a secret", zip=True)
    image = PIXELS.quantize(4)
    plain = encoded(image, "PNG", transparency=1)
    laden = encoded(
        image, "PNG", transparency=1, pnginfo=text, icc_profile=PROFILE, dpi=(72, 72), exif=turned(1)
    )
    assert essence(laden).data == essence(plain).data == plain
    assert np.array_equal(np.asarray(decode(laden)), np.asarray(decode(plain)))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_colours_and_nothing_else(mode, progressive):
    image, save = PIXELS.convert(mode), {"progressive": progressive, "quality": 95}
    plain = encoded(image, "JPEG", **save)
    laden = encoded(image, "JPEG", **save, exif=turned(1), icc_profile=PROFILE, comment=b"c" * 9, xmp=XMP)
    assert len(laden) > len(plain) + len(PROFILE)
    assert essence(laden).data == essence(plain).data == plain
    with Image.open(io.BytesIO(laden)) as whole:
        assert np.array_equal(np.asarray(decode(laden)), np.asarray(whole.convert("RGB")))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_keeps_its_pixels_and_nothing_else(lossless, mode):
    image = PIXELS.convert(mode)
    if mode == "RGBA":
        image.putpixel((1, 1), (9, 9, 9, 40))
    plain = encoded(image, "WEBP", lossless=lossless)
    laden = encoded(image, "WEBP", lossless=lossless, exif=turned(1), icc_profile=PROFILE, xmp=XMP)
    assert len(essence(laden).data) < len(plain) + 30
    assert np.array_equal(np.asarray(decode(laden)), np.asarray(decode(plain)))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_left(format):
    frames = [Image.new("RGB", (9, 9), shade) for shade in ("blue", "red", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=10, **options)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(frames[0]))
    with Image.open(io.BytesIO(essence(data).data)) as left:
        assert getattr(left, "n_frames", 1) == 1


def test_of_several_pictures_in_a_jpeg_the_first_is_left():
    data = encoded(PIXELS, "MPO", save_all=True, append_images=[Image.new("RGB", (7, 5))])
    assert probe(data).format == "JPEG"
    with Image.open(io.BytesIO(data)) as first:
        assert np.array_equal(np.asarray(decode(data)), np.asarray(first))


def test_the_number_of_parts_is_bounded():
    png, jpeg, webp = (encoded(PIXELS, format) for format in ("PNG", "JPEG", "WEBP"))
    many = MAX_PARTS + 1
    for data, what in (
        (png[:33] + chunk(b"teXt", b"") * many + png[33:], "chunks"),
        (png[:33] + chunk(b"IDAT", b"") * many + png[33:], "chunks"),
        (jpeg[:2] + segment(0xFE, b"") * many + jpeg[2:], "segments"),
        (jpeg[:2] + b"\xff" * many + jpeg[2:], "segments"),
        (webp + (b"JUNK" + bytes(4)) * many, "chunks"),
    ):
        with pytest.raises(MediaError, match=f"more than {MAX_PARTS} {what}"):
            essence(data)


def test_the_number_of_scans_is_bounded():
    data = encoded(PIXELS, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    more = MAX_SCANS - data.count(b"\xff\xda")
    assert decode(data[:-2] + last * more + data[-2:]).size == (7, 5)
    with pytest.raises(MediaError, match=f"more than {MAX_SCANS} scans"):
        decode(data[:-2] + last * (more + 1) + data[-2:])


def test_what_is_none_of_the_three_is_left_alone():
    for data in (b"", b"GIF89a", b"\xff", b"RIFF1234WAVE" + bytes(20), encoded(PIXELS, "BMP")):
        assert essence(data).data == data


WHOLE = [
    encoded(PIXELS, format, exif=turned(6), icc_profile=PROFILE, **options)
    for format, options in (("PNG", {}), ("JPEG", {"xmp": XMP}), ("WEBP", {"xmp": XMP}))
]


@given(st.sampled_from(WHOLE), st.data())
def test_whatever_the_bytes_are_what_is_left_is_no_longer_and_stays_as_it_is(whole, data):
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 8)) if broken else 0):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    left = essence(bytes(broken))
    assert len(left.data) <= max(len(broken), 12)
    assert left.orientation in (None, *range(1, 9))
    assert essence(left.data).data == left.data


@pytest.mark.parametrize(
    ("start", "container"),
    [
        (b"\0\0\0\x20ftypisom", "MP4"),
        (b"\0\0\0\x14ftypqt  ", "MP4"),
        (b"\0\0\x10\0moov", "MP4"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81", "WEBM"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        ((b"G" + bytes(187)) * 3, "MPEG-TS"),
        (b"RIFF\0\0\0\0WEBPVP8 ", ""),
        (b"\0\0\0\x20ftypavif", ""),
        (b"\0\0\0\x20ftypmif1", ""),
        (encoded(PIXELS, "GIF"), ""),
        (encoded(PIXELS, "PNG"), ""),
        (b"G" * 5, ""),
        (b"", ""),
    ],
)
def test_a_video_is_told_from_an_image_by_its_first_bytes(start, container):
    assert video_format(start) == container
    assert is_video(start) == (container != "")
