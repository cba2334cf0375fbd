"""Image files as people have them become candidates, and what cannot be read is counted."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from data_recipes.recipe import Built
from data_recipes.registry import RECIPES
from prefrm.errors import MediaError
from prefrm.media import ImageLimits, decode, read
from prefrm.records import read_groups, read_info

PICTURE = (
    Image.fromarray((np.arange(6 * 10 * 3) % 251).astype(np.uint8).reshape(6, 10, 3))
    .quantize(64)
    .convert("RGB")
)
LATER = [Image.new("RGB", PICTURE.size, "red"), Image.new("RGB", PICTURE.size, "blue")]
FORMATS = {
    "animated.gif": {"save_all": True, "append_images": LATER, "duration": 20},
    "plain.bmp": {},
    "turned.tiff": {"tiffinfo": {0x0112: 6}},
    "pages.tif": {"save_all": True, "append_images": LATER, "compression": "tiff_lzw"},
    "turned.avif": {
        "quality": 100,
        "subsampling": "4:4:4",
        "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\6\0\0" + bytes(4),
    },
    "animated.avif": {"save_all": True, "append_images": LATER, "quality": 100, "subsampling": "4:4:4"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, options in FORMATS.items():
        PICTURE.save(tmp_path / name, **options)
    for n in range(4):
        Image.new("RGB", (8, 8), (60 * n, 0, 0)).save(tmp_path / f"{n}.png")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    return tmp_path


def build(folder: Path, rows: Sequence[tuple[str, str, str]]) -> Built:
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("prompt", "image_1", "image_2", "preferred"), *((*row, "1") for row in rows)]
        )
    return RECIPES["pairs"].build(folder / "out", source=folder / "pairs.csv", validation=0, test=0)


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_frame_of_a_file_is_a_candidate_as_png_and_upright(folder: Path, name: str) -> None:
    built = build(folder, [("a cat", name, "0.png")])
    assert (built.left_out, built.info.left_out) == ((), {})
    (group,) = read_groups(folder / "out", "train")
    (image,) = {image for image in group.candidates} - {(folder / "0.png").read_bytes()}
    with Image.open(io.BytesIO(image or b"")) as stored:
        assert (stored.format, getattr(stored, "n_frames", 1)) == ("PNG", 1)
    with Image.open(folder / name) as first:
        wanted = np.asarray(ImageOps.exif_transpose(first).convert("RGB"))
    assert wanted.shape[:2] == ((10, 6) if name.startswith("turned") else (6, 10))
    assert np.array_equal(np.asarray(decode(image or b"")), wanted)


def test_what_is_left_out_is_counted_and_named(folder: Path) -> None:
    rows = [
        ("a cat", "0.png", "photo.heic"),
        ("a cat", "photo.heic", "1.png"),
        ("a cat", "0.png", "1.png"),
        ("a dog", "photo.heic", "2.png"),
        ("a dog", "2.png", "gone.png"),
        ("a cow", "2.png", "3.png"),
    ]
    built = build(folder, rows)
    assert built.info.left_out == {"broken image": 4}
    assert read_info(folder / "out") == built.info
    assert built.groups == {"train": 2}
    assert (
        "photo.heic: not a valid PNG or JPEG or WEBP image but HEIC; convert it to PNG" in built.left_out[0]
    )


def test_an_avif_file_without_avif_in_pillow_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(features.modules, "avif")  # as in Pillow 10 and 11.0 to 11.2
    built = build(folder, [("a cat", "turned.avif", "0.png"), ("a dog", "2.png", "3.png")])
    assert built.left_out[0].endswith(
        "turned.avif: the installed Pillow does not support AVIF; install 11.3 or newer: "
        "pip install --upgrade pillow"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_limits_hold_before_a_file_is_converted(folder: Path, name: str) -> None:
    with pytest.raises(MediaError, match=rf"{name}: the image has \d+ x \d+ pixels; the limit is 59"):
        read(folder / name, ImageLimits(max_pixels=59))
    size = (folder / name).stat().st_size
    with pytest.raises(MediaError, match=rf"{name}: the image has {size} bytes; the limit is {size - 1}"):
        read(folder / name, ImageLimits(max_bytes=size - 1))


def test_limits_hold_for_what_a_file_becomes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.avif", quality=1)
    size = (tmp_path / "a.avif").stat().st_size
    with pytest.raises(MediaError, match=r"a\.avif: the image has \d+ bytes; the limit is "):
        read(tmp_path / "a.avif", ImageLimits(max_bytes=2 * size))
