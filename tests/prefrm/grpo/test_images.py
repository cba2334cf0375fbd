"""Tensors as trainers hold them become the images that they are."""

import io

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, MediaError
from prefrm.grpo.images import encode_image, encode_images

PIXELS_NHWC = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
FLOATS_NCHW = (PIXELS_NHWC / np.float32(255)).transpose(0, 3, 1, 2)


def decoded(png):
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


@pytest.mark.parametrize("images", [PIXELS_NHWC, FLOATS_NCHW, list(PIXELS_NHWC), list(FLOATS_NCHW)])
def test_arrays_lose_nothing(images):
    assert np.array_equal(np.stack([decoded(png) for png in encode_images(images)]), PIXELS_NHWC)


def test_tensors_are_rounded_as_flow_grpo_rounds_them():
    torch = pytest.importorskip("torch")
    images = torch.rand(3, 3, 6, 7, generator=torch.manual_seed(0)) * 1.2 - 0.1
    # flow_grpo/rewards.py, jpeg_incompressibility
    theirs = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(np.stack([decoded(png) for png in encode_images(images)]), theirs)
    half = images.to(torch.bfloat16).requires_grad_()
    assert encode_images(half) == encode_images(images.to(torch.bfloat16).float())
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
        (FLOATS_NCHW.transpose(0, 2, 3, 1), r"received float32 \[5, 4, 3\]"),
        (np.zeros((1, 5, 4, 1), np.uint8), r"received uint8 \[5, 4, 1\]"),
        (PIXELS_NHWC.astype(np.int64), "received int64"),
        (["a.png"], "received str"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, message):
    with pytest.raises(ConfigError, match=message):
        encode_images(images)


def test_a_pixel_that_is_no_number_is_refused():
    broken = FLOATS_NCHW.copy()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(MediaError, match="a pixel that is NaN"):
        encode_images(broken)
