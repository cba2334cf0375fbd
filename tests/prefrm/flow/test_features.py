"""Maps over pixels from feature grids."""

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.flow.features import pixel_map, vision_features


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


def test_patch_features_of_a_vision_transformer(tmp_path):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    BitImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(tmp_path)
    images = torch.rand(2, 3, 28, 28)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.no_grad():
        # After the class token, row by row.
        expected = model(pixel_values=(images - mean) / std).last_hidden_state[:, 1:].reshape(2, 4, 4, 16)
    encode = vision_features(str(tmp_path), "cpu")
    torch.testing.assert_close(encode(images), expected)
    # Images of other sizes are resized.
    assert encode(torch.rand(1, 3, 50, 40)).shape == (1, 4, 4, 16)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        vision_features(str(tmp_path / "none"), "cpu")
