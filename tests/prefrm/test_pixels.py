"""Tensors, arrays and Pillow images are encoded without loss, or refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, MediaError
from prefrm.media import decode
from prefrm.pixels import encode_image, split_images

PIXELS_NHWC = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
FLOATS_NCHW = (PIXELS_NHWC / np.float32(255)).transpose(0, 3, 1, 2)


def encode_images(images):
    return [encode_image(image) for image in split_images(images)]


def decoded(png):
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


@pytest.mark.parametrize(
    "images",
    [
        PIXELS_NHWC,
        PIXELS_NHWC.transpose(0, 3, 1, 2),
        FLOATS_NCHW,
        # diffusers' output_type="np"
        FLOATS_NCHW.transpose(0, 2, 3, 1),
        FLOATS_NCHW.astype(np.float64),
        FLOATS_NCHW.astype(np.float16),
        FLOATS_NCHW + np.float32(1e-6) * np.array([-1, 1], np.float32)[:, None, None, None],
        list(PIXELS_NHWC),
        tuple(FLOATS_NCHW),
    ],
)
def test_arrays_lose_nothing(images):
    assert np.array_equal(np.stack([decoded(png) for png in encode_images(images)]), PIXELS_NHWC)


def test_tensors_are_rounded_as_flow_grpo_rounds_them():
    torch = pytest.importorskip("torch")
    images = torch.rand(3, 3, 6, 7, generator=torch.manual_seed(0))
    # flow_grpo/rewards.py, jpeg_incompressibility
    theirs = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(np.stack([decoded(png) for png in encode_images(images)]), theirs)
    for half in (torch.bfloat16, torch.float16):
        assert encode_images(images.to(half).requires_grad_()) == encode_images(images.to(half).float())
    # verl-omni's responses: uint8 [C, H, W]
    assert np.array_equal(
        decoded(encode_image(torch.from_numpy(theirs[0].transpose(2, 0, 1).copy()))), theirs[0]
    )


def test_encoded_and_pillow_images_pass():
    image = Image.fromarray(PIXELS_NHWC[0])
    assert encode_images([b"as it is", image])[0] == b"as it is"
    assert np.array_equal(decoded(encode_image(image)), PIXELS_NHWC[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS_NHWC[0], r"four dimensions; received the shape \[5, 4, 3\]"),
        (FLOATS_NCHW[:, :1], r"received float32 \[1, 5, 4\]"),
        (FLOATS_NCHW[:, :, :3, :3].transpose(0, 2, 3, 1), r"\[3, 3, 3\] is \[3, H, W\] or \[H, W, 3\]"),
        (np.zeros((1, 3, 5, 3), np.uint8), r"\[3, 5, 3\] is \[3, H, W\] or \[H, W, 3\]"),
        (np.zeros((1, 3, 0, 4), np.uint8), r"received uint8 \[3, 0, 4\]"),
        (np.zeros((1, 5, 4, 1), np.uint8), r"received uint8 \[5, 4, 1\]"),
        (PIXELS_NHWC.astype(np.int64), "received int64"),
        (["a.png"], "received str"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, message):
    with pytest.raises(ConfigError, match=message):
        encode_images(images)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "a pixel that is NaN or infinite"),
        (np.inf, "a pixel that is NaN or infinite"),
        (-np.inf, "a pixel that is NaN or infinite"),
        (255.0, r"in \[0, 1\]; received values from 0.* to 255; scale"),
        (-1.0, r"in \[0, 1\]; received values from -1 to "),
        (1.0156, "to 1.01.*; scale"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_pixel_that_is_no_level_is_refused(value, message, dtype):
    broken = FLOATS_NCHW.astype(dtype)
    broken[1, 0, 0, 0] = value
    assert encode_image(broken[0]) == encode_image(PIXELS_NHWC[0])
    with pytest.raises(MediaError, match=message):
        encode_image(broken[1])


def transparent(mode):
    """An image of the mode, a quarter of which is transparent where the mode has transparency."""
    image = Image.fromarray(np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4) * 2)
    if mode == "P with transparency":
        return image.quantize(16)
    return image.convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "P with transparency", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBa", "F"]
)
def test_a_pillow_image_of_any_mode_is_the_picture_that_a_person_sees(mode):
    image = transparent(mode)
    rgba = image.convert("RGB" if mode in ("CMYK", "YCbCr", "HSV", "F") else "RGBA").convert("RGBA")
    seen = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    assert len(np.unique(np.asarray(seen))) > 1
    assert np.array_equal(np.asarray(decode(encode_image(image))), np.asarray(seen))
