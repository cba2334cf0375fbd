"""Maps over pixels from feature grids."""

import pytest
import torch

from prefrm.flow.features import pixel_map


@pytest.fixture
def scene():
    """Two images with a background and, in a corner, an object of another feature."""
    torch.manual_seed(0)
    features = 0.01 * torch.randn(2, 8, 8, 5)
    features[0, :3, :3] += torch.tensor([1.0, 0, 0, 2, 0])
    features[1, 5:, 5:] -= torch.tensor([0, 3.0, 0, 0, 1])
    return features


def test_the_object_counts_more_than_the_background(scene):
    weights = pixel_map(scene, (8, 8))
    assert weights.shape == (2, 8, 8)
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= 1
    assert float(weights[0, :2, :2].min()) > 2 * float(weights[0, 6:, 6:].max())
    assert float(weights[1, 6:, 6:].min()) > 2 * float(weights[1, :2, :2].max())


def test_the_sign_of_the_features_does_not_matter(scene):
    torch.testing.assert_close(pixel_map(scene, (8, 8)), pixel_map(-scene, (8, 8)), rtol=1e-3, atol=1e-4)


def test_it_is_interpolated_to_the_latents(scene):
    assert pixel_map(scene, (16, 4)).shape == (2, 16, 4)


@pytest.mark.parametrize("features", [torch.ones(1, 4, 4, 3), torch.zeros(1, 4, 4, 1)])
def test_a_constant_image_has_ones(features):
    assert torch.equal(pixel_map(features, (8, 8)), torch.ones(1, 8, 8))


def test_autocast_changes_nothing(scene):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = pixel_map(scene.bfloat16(), (8, 8))
    assert actual.dtype == torch.float32
    assert torch.equal(actual, pixel_map(scene.bfloat16().float(), (8, 8)))
