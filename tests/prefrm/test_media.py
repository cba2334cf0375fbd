"""Untrusted images: checked before they are decoded, then upright RGB over white."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefrm import media, modes
from prefrm.errors import ConfigError, MediaError
from prefrm.media import ImageInfo, ImageLimits, decode, digest, encode_png, probe, read


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


GRADIENT = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_probe_reads_format_and_size_from_the_header(format):
    assert probe(encoded(GRADIENT, format)) == ImageInfo(format=format, width=7, height=5)


@pytest.mark.parametrize(
    "data", [png_header(0, 5), png_header(7, 5)[:32], png_header(7, 5).replace(b"\x07", b"\x08", 1)]
)
def test_a_png_whose_first_chunk_is_not_whole_is_refused(data):
    with pytest.raises(MediaError):
        probe(data)


@given(st.integers(1, 9), st.integers(1, 9), st.binary(min_size=243, max_size=243))
def test_png_is_lossless(width, height, noise):
    pixels = np.frombuffer(noise, np.uint8)[: width * height * 3].reshape(height, width, 3)
    data = encode_png(Image.fromarray(pixels))
    assert np.array_equal(np.asarray(decode(data)), pixels)
    assert digest(data) == digest(bytes(data))


def test_digest_is_sha256():
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("check", [probe, decode])
class TestRefusals:
    def test_empty(self, check):
        with pytest.raises(MediaError, match="0 bytes"):
            check(b"")

    def test_too_many_bytes(self, check):
        data = encoded(GRADIENT)
        assert check(data, ImageLimits(max_bytes=len(data)))
        with pytest.raises(MediaError, match=f"has {len(data)} bytes; the limit is {len(data) - 1}"):
            check(data, ImageLimits(max_bytes=len(data) - 1))

    def test_too_many_pixels(self, check):
        assert check(encoded(GRADIENT), ImageLimits(max_pixels=35))
        with pytest.raises(MediaError, match="7 x 5 pixels; the limit is 34"):
            check(encoded(GRADIENT), ImageLimits(max_pixels=34))

    @pytest.mark.parametrize("side", [8001, 100_000])
    def test_a_bomb_is_refused_by_its_header_alone(self, check, side):
        # 100,000 x 100,000 is beyond Pillow's own bound; 8,001 x 8,001 is beyond ours.
        with pytest.raises(MediaError, match="pixels"):
            check(png_header(side, side))

    def test_a_format_that_was_not_asked_for(self, check):
        with pytest.raises(MediaError, match="not a valid PNG or JPEG or WEBP image"):
            check(encoded(GRADIENT, "GIF"))
        with pytest.raises(MediaError, match="not a valid PNG image"):
            check(encoded(GRADIENT, "JPEG"), ImageLimits(formats=("PNG",)))

    @given(
        noise=st.binary(min_size=1, max_size=200), magic=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"RIFF"])
    )
    def test_noise(self, check, noise, magic):
        with pytest.raises(MediaError):
            check(magic + noise)


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1", b"mif1\0\0\0\0mif1heicmiaf", b"msf1\0\0\0\0heix"])
def test_a_heic_file_is_named_as_one_whichever_of_its_formats_is_listed_first(brands, tmp_path):
    box = struct.pack(">I", len(brands) + 8) + b"ftyp" + brands
    (tmp_path / "a.heic").write_bytes(box + bytes(100))
    with pytest.raises(MediaError, match="not a valid PNG or JPEG or WEBP image but HEIC; convert it to PNG"):
        read(tmp_path / "a.heic")


# The first refusal makes Pillow load all of its plugins.
@settings(deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_corrupted_image_decodes_or_is_refused(format, data):
    whole = bytearray(encoded(GRADIENT, format))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode(bytes(whole), ImageLimits(max_pixels=10**6))
    except MediaError:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_passes_no_decoding(format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), format)
    with pytest.raises(MediaError):
        decode(whole[: len(whole) // 2])


def raises(check, data):
    try:
        check(data)
    except MediaError:
        return True
    return False


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (40, 33)])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"quality": 100, "subsampling": 0}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_blocks": 1}),
        ("L", {}),
        ("CMYK", {"progressive": True}),
    ],
)
def test_a_jpeg_passes_verification_if_it_can_be_decoded(mode, options, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise).convert(mode), "JPEG", **options)
    assert not raises(media.verify, whole)
    cut = [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 60))]
    places = np.random.default_rng(1).integers(2, len(whole), 60)
    damaged = [whole[:n] + bytes([whole[n] ^ (1 << n % 8)]) + whole[n + 1 :] for n in places]
    seen = [raises(media.verify, data) for data in cut + damaged]
    assert seen == [raises(decode, data) for data in cut + damaged]
    assert any(seen)


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "P"), ("WEBP", "RGB")]
)
def test_an_image_of_another_format_is_verified_by_decoding_it(format, mode):
    whole = encoded(Image.new(mode, (8, 8)), format)
    for data in (whole, whole[: len(whole) // 2], b"", b"GIF89a"):
        assert raises(media.verify, data) == raises(decode, data) == (data != whole)


def test_transparency_is_laid_over_white():
    clear, half = (255, 0, 0, 0), (255, 0, 0, 128)
    image = Image.new("RGBA", (2, 1), clear)
    image.putpixel((1, 0), half)
    decoded = decode(encoded(image))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (255, 127, 127)


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([255, 0, 0])
    assert decode(encoded(image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(image)).getpixel((0, 0)) == (255, 0, 0)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    image = Image.new("RGB", (2, 1), "red")
    image.putpixel((1, 0), (0, 0, 255))
    upright = decode(encoded(image, exif=exif))
    assert upright.size == (1, 2)
    assert [upright.getpixel((0, y)) for y in (0, 1)] == [(255, 0, 0), (0, 0, 255)]
    deep = Image.fromarray(np.array([[0, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(decode(encoded(deep, exif=exif)))[:, 0, 0].tolist() == [0, 255]


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.array([[0, 0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(ramp))))[0, :, 0].tolist() == [0, 0x7F, 0x80, 0xFF]


@pytest.mark.parametrize(("mode", "color"), [("L", 7), ("1", 0), ("CMYK", (0, 0, 0, 0))])
def test_every_mode_becomes_rgb(mode, color):
    image = decode(encoded(Image.new(mode, (3, 2), color), "JPEG" if mode == "CMYK" else "PNG"))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_read_checks_and_names_the_file(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded(GRADIENT))
    bad.write_bytes(b"not an image")
    assert read(good) == encoded(GRADIENT)
    with pytest.raises(MediaError, match=r"bad\.png: not a valid PNG or JPEG or WEBP image"):
        read(bad)
    with pytest.raises(MediaError, match=r"good\.png: the image has \d+ bytes; the limit is 10"):
        read(good, ImageLimits(max_bytes=10))
    with pytest.raises(MediaError, match=r"absent\.png: cannot be read: No such file"):
        read(tmp_path / "absent.png")


def test_an_oversized_file_is_never_read(tmp_path):
    # A terabyte that is nowhere: reading it could not succeed, with any other error.
    file = tmp_path / "huge.png"
    with file.open("wb") as huge:
        huge.write(encoded(GRADIENT))
        huge.truncate(2**40)
    with pytest.raises(MediaError, match=f"huge.png: the image has {2**40} bytes"):
        read(file)


def test_a_device_and_a_pipe_are_never_read(tmp_path):
    """The first has no end, and the second blocks whoever opens it."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (Path("/dev/zero"), tmp_path / "pipe.png", tmp_path):
        with pytest.raises(MediaError, match=f"{path}: not a regular file"):
            read(path)


def test_a_path_that_cannot_be_one_is_unreadable():
    with pytest.raises(MediaError, match="cannot be read: embedded null"):
        read("a\0b")


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a.png", Path("https://example.org/a.png"), "S3://b/a.png", "data:image/png,x"],
)
def test_a_url_is_named_as_one(url):
    with pytest.raises(MediaError, match=r"is a URL; nothing is fetched: download the image"):
        read(url)


def test_a_file_whose_name_looks_like_a_url_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data:1.png", "C:/a.png", "set:/a.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(encoded(GRADIENT))
        assert read(name) == encoded(GRADIENT)
    with pytest.raises(MediaError, match=r"c:/absent\.png: cannot be read: No such file"):
        read("c:/absent.png")


def test_more_pixels_than_pillow_opens_cannot_be_allowed():
    most = 2 * Image.MAX_IMAGE_PIXELS
    assert ImageLimits(max_pixels=most).max_pixels == most
    with pytest.raises(ConfigError, match=f"Pillow opens no image of more than {most}"):
        ImageLimits(max_pixels=10**9)


@pytest.mark.parametrize(
    "mode", ["CMYK", "F", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "PA", "I", "I;16", "LA"]
)
def test_every_mode_is_encoded(mode):
    image = decode(encode_png(Image.new(mode, (3, 2))))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_conversions_for_png_keep_the_picture():
    assert decode(encode_png(GRADIENT.convert("CMYK"))).getpixel((6, 4)) == GRADIENT.getpixel((6, 4))
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0)).convert("RGBa")
    assert decode(encode_png(clear)).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.array([[0x80FF]], dtype=np.int32))
    assert decode(encode_png(deep)).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_premultiplied_grey_and_big_endian_grey_keep_the_picture():
    grey = Image.new("LA", (1, 1), (255, 0))
    assert decode(encode_png(grey.convert("La"))).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.frombytes("I;16B", (2, 1), b"\x80\xff\x00\x01")
    assert np.asarray(decode(encode_png(deep)))[0, :, 0].tolist() == [0x80, 0]


@pytest.mark.parametrize(
    ("samples", "received"),
    [
        (np.float32(300), "300"),
        (np.float32(np.nan), "nan"),
        (np.int32(-1), "-1"),
        (np.int32(70_000), "70000"),
    ],
)
def test_samples_that_no_grey_level_shows_are_refused(samples, received):
    with pytest.raises(MediaError, match=f"has samples from 0 to .*; received {received} to {received}"):
        encode_png(Image.fromarray(np.full((2, 2), samples)))


@pytest.mark.parametrize(
    ("samples", "range"), [(np.array([[3, 255]], np.int32), "3 to 255"), (np.float32([[0, 0.5]]), "0 to 0.5")]
)
def test_samples_that_would_be_shown_as_black_are_refused(samples, range):
    """An array of integers up to 255, or of floats up to 1, to `Image.fromarray`."""
    with pytest.raises(MediaError, match=f"received {range}, which look like samples from 0 to .*; scale"):
        encode_png(Image.fromarray(samples))
    assert not np.asarray(decode(encode_png(Image.fromarray(samples * 0)))).any()


@pytest.mark.parametrize(
    ("samples", "seen"),
    [
        (np.array([[0, 0x80FF, 0xFFFF]], np.int32), [0, 0x80, 0xFF]),
        (np.float32([[0, 128, 255]]), [0, 128, 255]),
    ],
)
def test_deep_grey_is_the_same_picture_from_a_file_and_from_pillow(samples, seen, tmp_path):
    image = Image.fromarray(samples)
    image.save(tmp_path / "a.tiff")
    for data in (read(tmp_path / "a.tiff"), encode_png(image)):
        assert np.asarray(decode(data))[0, :, 0].tolist() == seen


@pytest.mark.parametrize("sample", [np.float32(np.nan), np.float32(300), np.int32(70_000), np.float32(0.5)])
def test_a_file_with_samples_out_of_range_is_refused(sample, tmp_path):
    Image.fromarray(np.full((2, 2), sample)).save(tmp_path / "a.tiff")
    with pytest.raises(MediaError, match=r"a\.tiff: an image of mode . has samples from 0 to"):
        read(tmp_path / "a.tiff")


def test_a_pillow_image_whose_pixels_cannot_be_read_is_refused():
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(MediaError, match="pixel data is truncated"):
        encode_png(Image.open(io.BytesIO(whole[: len(whole) // 2])))
    with Image.open(io.BytesIO(whole)) as closed:
        pass
    with pytest.raises(MediaError, match="pixel data is truncated or corrupt"):
        encode_png(closed)


def test_a_conversion_keeps_no_profile_of_another_colour_space(tmp_path):
    GRADIENT.convert("CMYK").save(tmp_path / "a.tiff", icc_profile=b"of CMYK" * 1000)
    with Image.open(tmp_path / "a.tiff") as image:
        made = (read(tmp_path / "a.tiff"), encode_png(image))
    for data in made:
        assert len(data) < 1000 and "icc_profile" not in Image.open(io.BytesIO(data)).info


@pytest.mark.parametrize("mode", ["RGB", "I"])
def test_an_image_without_pixels_is_refused(mode):
    with pytest.raises(MediaError, match="no pixels: it is 0 x 5"):
        encode_png(Image.new(mode, (0, 5)))


def test_a_damaged_tag_of_a_tiff_file_neither_stops_it_nor_warns(tmp_path):
    # The last tag: before 13, Pillow reads none after one that is damaged.
    whole = bytearray(encoded(GRADIENT, "TIFF", tiffinfo={33432: "a long copyright notice"}))
    entry = whole.index(struct.pack("<HH", 33432, 2))
    struct.pack_into("<I", whole, entry + 4, 10**6)
    (tmp_path / "a.tiff").write_bytes(whole)
    assert np.array_equal(np.asarray(decode(read(tmp_path / "a.tiff"))), np.asarray(GRADIENT))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_over_white_by_tiles_is_that_of_the_whole(mode, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    rgba = image.convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    monkeypatch.setattr(modes, "TILE", 10)
    assert decode(encoded(image)).tobytes() == whole.tobytes()


def test_a_header_tells_how_many_pixels_a_decoder_computes():
    data = encoded(GRADIENT, "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    many = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * (100 - scans) + data[-2:]
    assert scans > 1
    assert probe(data).decoded_pixels == scans * 5 * 7
    assert probe(many).decoded_pixels == 100 * 5 * 7
    assert probe(encoded(GRADIENT)).decoded_pixels == probe(encoded(GRADIENT)).pixels == 5 * 7
