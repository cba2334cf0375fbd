"""Whatever carries an image's orientation, it is judged as `PIL.ImageOps.exif_transpose` turns it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from prefrm.containers import essence
from prefrm.media import decode, encode_png, read, upright

# Each corner differs, so that each of the eight orientations shows; blocks of 16 survive JPEG.
CORNERS = np.array(
    [[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[250, 250, 0], [0, 0, 0], [250, 250, 250]]], np.uint8
)
PICTURE = Image.fromarray(CORNERS.repeat(16, axis=0).repeat(16, axis=1))
SHORT, LONG, BYTE = (3, "H"), (4, "I"), (1, "B")


def saved(format, **options):
    buffer = io.BytesIO()
    PICTURE.save(buffer, format=format, **options)
    return buffer.getvalue()


def exif(orientation, order="<", kind=SHORT, ahead=0):
    """A TIFF structure with the one tag, its directory behind `ahead` bytes of padding."""
    code, letter = kind
    value = struct.pack(f"{order}{letter}", orientation).ljust(4, b"\0")
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + ahead)
    return start + bytes(ahead) + struct.pack(f"{order}HHHI", 1, 0x0112, code, 1) + value + bytes(4)


def xmp(orientation, form='tiff:Orientation="{}"/>'):
    body = form.format(orientation)
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {body}</x:xmpmeta>'.encode()


def element(orientation):
    return xmp(orientation, "><tiff:Orientation>{}</tiff:Orientation></rdf:Description>")


def raw_profile(orientation):
    data = b"Exif\0\0" + exif(orientation)
    return f"\nexif\n{len(data):8}\n{data[:20].hex()}\n{data[20:].hex()}\n"


def jpeg(*segments):
    whole = saved("JPEG", quality=100)
    parts = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in segments)
    return whole[:2] + parts + whole[2:]


def jpeg_exif(tiff):
    return jpeg(b"Exif\0\0" + tiff)


def jpeg_xmp(packet):
    return b"http://ns.adobe.com/xap/1.0/\0" + packet


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, at_the_end=False):
    whole, parts = saved("PNG"), b"".join(chunks)
    place = len(whole) - 12 if at_the_end else 33
    return whole[:place] + parts + whole[place:]


def text(keyword, value, how="tEXt"):
    made = PngImagePlugin.PngInfo()
    if how.startswith("iTXt"):
        made.add_itxt(keyword, value, "en", "key", zip=how == "iTXt zipped")
    else:
        made.add_text(keyword, value, zip=how == "zTXt")
    return saved("PNG", pnginfo=made)


def webp_without_flags(n):
    whole = bytearray(saved("WEBP", lossless=True, exif=exif(n), xmp=xmp(n)))
    whole[whole.index(b"VP8X") + 8] &= ~0x0C
    return bytes(whole)


XMP, PROFILE = "XML:com.adobe.xmp", "Raw profile type exif"
CARRIERS = {
    "jpeg, little-endian": lambda n: jpeg_exif(exif(n)),
    "jpeg, big-endian": lambda n: jpeg_exif(exif(n, ">")),
    "jpeg, LONG": lambda n: jpeg_exif(exif(n, kind=LONG)),
    "jpeg, big-endian LONG": lambda n: jpeg_exif(exif(n, ">", LONG)),
    "jpeg, BYTE": lambda n: jpeg_exif(exif(n, kind=BYTE)),
    "jpeg, the header twice": lambda n: jpeg(b"Exif\0\0Exif\0\0" + exif(n)),
    "jpeg, EXIF over two segments": lambda n: jpeg(
        *(b"Exif\0\0" + part for part in (exif(n, ahead=300)[:200], exif(n, ahead=300)[200:]))
    ),
    "jpeg, EXIF twice": lambda n: jpeg(b"Exif\0\0" + exif(n), b"Exif\0\0" + exif(9 - n)),
    "jpeg, XMP": lambda n: jpeg(jpeg_xmp(xmp(n))),
    "jpeg, XMP element": lambda n: jpeg(jpeg_xmp(element(n))),
    "jpeg, XMP in single quotes": lambda n: jpeg(jpeg_xmp(xmp(n, "tiff:Orientation='{}'/>"))),
    "jpeg, XMP twice": lambda n: jpeg(jpeg_xmp(xmp(9 - n)), jpeg_xmp(xmp(n))),
    "jpeg, EXIF and XMP": lambda n: jpeg(jpeg_xmp(xmp(9 - n)), b"Exif\0\0" + exif(n)),
    "png, eXIf": lambda n: png(chunk(b"eXIf", exif(n, ">", LONG))),
    "png, eXIf behind the pixels": lambda n: png(chunk(b"eXIf", exif(n)), at_the_end=True),
    "png, XMP in iTXt": lambda n: text(XMP, xmp(n).decode(), "iTXt"),
    "png, XMP in iTXt, zipped": lambda n: text(XMP, element(n).decode(), "iTXt zipped"),
    "png, XMP in tEXt": lambda n: text(XMP, xmp(n).decode()),
    "png, raw profile": lambda n: text(PROFILE, raw_profile(n)),
    "png, raw profile, zipped": lambda n: text(PROFILE, raw_profile(n), "zTXt"),
    "png, raw profile in iTXt": lambda n: text(PROFILE, raw_profile(n), "iTXt zipped"),
    "png, raw profile APP1": lambda n: text("Raw profile type APP1", raw_profile(n), "zTXt"),
    "png, eXIf and XMP": lambda n: png(
        chunk(b"iTXt", XMP.encode() + b"\0\0\0\0\0" + xmp(9 - n)), chunk(b"eXIf", exif(n))
    ),
    "png, two XMP": lambda n: png(
        *(chunk(b"iTXt", XMP.encode() + b"\0\0\0\0\0" + xmp(which)) for which in (9 - n, n))
    ),
    "webp": lambda n: saved("WEBP", lossless=True, exif=exif(n, ">", LONG)),
    "webp, with JPEG's header": lambda n: saved("WEBP", lossless=True, exif=b"Exif\0\0" + exif(n)),
    "webp, XMP": lambda n: saved("WEBP", lossless=True, xmp=xmp(n)),
    "webp, EXIF and XMP": lambda n: saved("WEBP", lossless=True, exif=exif(n), xmp=xmp(9 - n)),
    "webp, flags unset": webp_without_flags,
}
FILES = {
    "tiff": lambda n: saved("TIFF", tiffinfo={0x0112: n}),
    "avif": lambda n: saved("AVIF", quality=100, exif=b"Exif\0\0" + exif(n)),
}


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("name", CARRIERS)
def test_encoded_bytes_and_pillow_images_are_turned_as_pillow_turns_them(name):
    for n in range(1, 9):
        data = CARRIERS[name](n)
        assert np.array_equal(np.asarray(decode(data)), by_pillow(data)), n
        with Image.open(io.BytesIO(data)) as image:
            before = image.size
            assert np.array_equal(np.asarray(decode(encode_png(image))), by_pillow(data)), n
            assert image.size == before


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_converted_are_turned_as_pillow_turns_them(name, tmp_path):
    for n in range(1, 9):
        data = FILES[name](n)
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(np.asarray(decode(read(tmp_path / name))), by_pillow(data)), n


@pytest.mark.parametrize("name", CARRIERS)
def test_a_reader_that_ignores_metadata_gets_the_image_upright(name):
    for n in range(1, 9):
        data = CARRIERS[name](n)
        made = upright(data)
        with Image.open(io.BytesIO(made)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), by_pillow(data)), n
        assert (made == data) == (essence(data).orientation == 1)


def test_the_carriers_tell_all_eight_apart():
    seen = {by_pillow(CARRIERS["png, raw profile"](n)).tobytes() for n in range(1, 9)}
    assert len(seen) == 8


@pytest.mark.parametrize(
    "damage", [b"", b"II*\0", b"Exif\0\0", b"II*\0\x08\0\0\0\xff\xff", b"no tiff at all"]
)
def test_damaged_exif_turns_nothing(damage):
    upright = np.asarray(PICTURE)
    data = png(chunk(b"eXIf", damage))
    assert np.array_equal(np.asarray(decode(data)), upright)
    image = PICTURE.copy()
    image.info["exif"] = damage
    assert np.array_equal(np.asarray(decode(encode_png(image))), upright)


def test_a_text_that_inflates_beyond_pillows_bound_is_not_read():
    bomb = zlib.compress(b"\n\n\n" + b"00" * 2**21)
    data = png(chunk(b"zTXt", PROFILE.encode() + b"\0\0" + bomb))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(PICTURE))
