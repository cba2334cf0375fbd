"""Rewards of groups by key, several at once, missing candidates, and win rates against others."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.flow.features import features
from prefrm.flow.rollout import encode_images
from prefrm.rewards.samples import Pointwise, WinRates
from prefrm.winmatrix import FakeScorer

# Images of one gray level each: brighter is better.
LEVELS = [0.1, 0.9, 0.5, 0.2, 0.7, 0.4]


def brightness(prompt: str, image: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 50


def images(levels: list[float] = LEVELS) -> torch.Tensor:
    return torch.stack([torch.full((3, 4, 4), level) for level in levels])


def scored(keys: list[tuple[int, ...]], pixels: torch.Tensor) -> dict[str, np.ndarray]:
    rewards = {"judge": WinRates(FakeScorer(brightness)), "value": Pointwise(brightness)}
    encoded = encode_images(pixels)
    return {name: reward.rewards(["a"] * len(keys), encoded, keys) for name, reward in rewards.items()}


def test_win_rates_are_within_groups() -> None:
    keys = [(0, 1), (1, 1), (0, 1), (1, 1), (0, 1), (1, 1)]
    rewards = scored(keys, images())
    for group in ([0, 2, 4], [1, 3, 5]):
        np.testing.assert_allclose(rewards["judge"][group].mean(), 0.5, atol=1e-6)
        order = np.argsort(np.array(LEVELS)[group])
        assert (np.diff(rewards["judge"][group][order]) > 0).all()
    np.testing.assert_allclose(rewards["value"], np.array(LEVELS) * 255 / 50, atol=0.02)
    # The same images in one group have other win rates.
    assert not np.allclose(scored([(0,)] * 6, images())["judge"], rewards["judge"])


def test_a_missing_image_has_no_reward_and_the_others_have() -> None:
    pixels = images()
    pixels[1, 0, 0, 0] = torch.nan
    rewards = scored([(0,)] * 6, pixels)
    assert np.isnan(rewards["judge"]).tolist() == [False, True, False, False, False, False]
    assert np.isnan(rewards["value"]).tolist() == np.isnan(rewards["judge"]).tolist()
    without = scored([(0,)] * 5, pixels[[0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(rewards["judge"][[0, 2, 3, 4, 5]], without["judge"])


def test_a_sample_without_opponents_has_no_win_rate() -> None:
    rewards = scored([(0,), (0,), (1,)], images([0.1, 0.2, 0.3]))
    assert np.isnan(rewards["judge"]).tolist() == [False, False, True]


def test_preference_over_others_is_a_half_over_oneself() -> None:
    judge = WinRates(FakeScorer(brightness))
    dark, bright = encode_images(images([0.1, 0.2, 0.3, 0.2])), encode_images(images([0.8, 0.9, 0.8, 0.9]))
    prompts = ["a", "a", "b", "b"]
    assert judge.against(prompts, dark, dark) == pytest.approx(0.5, abs=1e-6)
    assert judge.against(prompts, bright, dark) > 0.9
    assert judge.against(prompts, bright, dark) + judge.against(prompts, dark, bright) == pytest.approx(1)
    assert Pointwise(brightness).against(prompts, bright, dark) == pytest.approx(0.85 * 255 / 50, abs=0.02)


def test_features_of_pixels_are_a_grid_of_colors() -> None:
    pixels = torch.zeros(2, 3, 16, 16)
    pixels[0, :, :8] = 1
    grid = features(pixels)
    assert grid.shape == (2, 8, 8, 3)
    assert (grid[0, :4] == 0.5).all() and (grid[0, 4:] == -0.5).all() and (grid[1] == -0.5).all()
