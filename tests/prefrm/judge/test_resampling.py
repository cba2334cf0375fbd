"""Resizing in torch against Pillow, and its gradient."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling

from prefrm.errors import ConfigError
from prefrm.judge.backbones.resampling import resize

FILTERS = [Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS]
# Height and width before, and after.
SIZES = [((37, 23), (16, 48)), ((20, 30), (20, 64)), ((64, 40), (10, 40)), ((9, 9), (50, 50))]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def resized(image: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """By Pillow."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], resample))


def weight_sum(before: int, after: int, resample: int) -> float:
    """The largest sum of absolute weights of a pixel after, from what Pillow makes of single pixels."""
    return float(np.abs(resized(np.eye(before, dtype=np.float32), (after, before), resample)).sum(1).max())


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_weights_are_those_of_pillow(before: tuple[int, int], after: tuple[int, int], resample: int):
    """Its floating-point mode neither rounds nor clips, and grey noise needs no clipping."""
    image = (0.4 + 0.2 * noise(*before) / 255).astype(np.float32)
    found = resize(torch.from_numpy(image)[None], after, resample)[0]
    np.testing.assert_allclose(found, resized(image, after, resample), rtol=0, atol=1e-6)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_rounding_to_8_bits_is_all_that_differs(
    before: tuple[int, int], after: tuple[int, int], resample: int
):
    """Half a level for each axis, of which the weights of the second one spread the first."""
    image = noise(*before)
    found = 255 * resize(torch.from_numpy(image / 255)[None], after, resample)[0]
    spread = max(weight_sum(*axis, resample) for axis in zip(before, after, strict=True))
    bound = 0.5 * spread + 0.5
    assert np.abs(found.numpy() - resized(image, after, resample)).max() < bound + 1e-3
    assert bound < 1.28


@pytest.mark.parametrize("resample", FILTERS)
def test_the_gradient_is_that_of_the_weights(resample: int):
    image = torch.from_numpy(0.3 + 0.4 * noise(7, 5) / 255)[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda image: resize(image, (4, 9), resample), image)


def test_white_and_black_have_a_gradient():
    for level in (0.0, 1.0):
        image = torch.full((3, 37, 23), level, requires_grad=True)
        resize(image, (16, 48), Resampling.BICUBIC).sum().backward()
        assert image.grad.sum().item() == pytest.approx(3 * 16 * 48, rel=1e-5)


def test_another_filter_is_refused():
    with pytest.raises(ConfigError, match="BILINEAR, BICUBIC, LANCZOS"):
        resize(torch.zeros(3, 4, 4), (8, 8), Resampling.BOX)
