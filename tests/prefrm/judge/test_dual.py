"""Preprocessing of dual encoders, and the gradient of their utilities in the pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.differentiable import DifferentiableScorer
from prefrm.errors import ConfigError, MediaError, RecordError, ScoringError
from prefrm.judge.dual import DifferentiableDual
from prefrm.judge.dual.pictures import prepare_image, prepare_pixels
from prefrm.manifest import ImageFit
from prefrm.winmatrix import PowerScaling, TemperatureScaling
from tests.prefrm.judge.dual import SCORES, import_tiny, load_tiny

PROMPT = "a red cube"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {score: import_tiny(name, tmp_path_factory.mktemp(score)) for score, name in SCORES.items()}


def noise(count: int, height: int = 40, width: int = 33) -> torch.Tensor:
    """Random images [K, 3, H, W] of 8 bits."""
    pixels = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return (255 * pixels).round() / 255


def as_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((255 * pixels).round().to(torch.uint8).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(80, 40), (40, 40), (30, 90), (1, 1), (24, 24), (24, 7)])
@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_tensors_are_prepared_as_images_are(fit, size: tuple[int, int]):
    square = ImageFit(side=24, fit=fit, **PLAIN)
    pixels = noise(1, *size)[0]
    expected, found = prepare_image(as_image(pixels), square), prepare_pixels(pixels, square)
    assert expected.shape == (3, 24, 24) and expected.dtype == torch.float32
    # Half a level for each axis that Pillow rounds, the first times bicubic's absolute weights.
    assert (found - expected).abs().max() < (1e-6 if fit == "letterbox" else 1.13 * LEVEL)


@pytest.mark.parametrize(
    ("size", "bars"),
    [((48, 24), (0, 6)), ((24, 48), (6, 0)), ((24, 24), (0, 0)), ((8, 24), (8, 0)), ((1, 1), (0, 0))],
)
def test_a_letterbox_is_black_around_the_whole_image(size: tuple[int, int], bars: tuple[int, int]):
    found = prepare_image(Image.new("RGB", size, "white"), ImageFit(side=24, fit="letterbox", **PLAIN))
    left, top = bars
    expected = torch.zeros(3, 24, 24)
    expected[:, top : 24 - top, left : 24 - left] = 1
    torch.testing.assert_close(found, expected)


def test_black_bars_are_normalized_with_the_image():
    fit = ImageFit(side=24, fit="letterbox", mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 0.5))
    assert prepare_image(Image.new("RGB", (48, 24)), fit)[:, 0, 0].tolist() == [-1.0, -0.5, 0.0]


@pytest.mark.parametrize(("center", "first"), [("down", 1), ("even", 2)])
def test_half_a_pixel_is_cut_off_as_each_library_does(center, first: int):
    stripes = Image.fromarray(np.tile(np.arange(27, dtype=np.uint8)[None, :, None], (24, 1, 3)))
    fit = ImageFit(side=24, fit="crop", center=center, **PLAIN)
    assert round(float(prepare_image(stripes, fit)[0, 0, 0] * 255)) == first


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_an_extreme_aspect_ratio_is_refused_before_it_takes_memory(fit):
    with pytest.raises(MediaError, match="100000 x 1 pixels; one side may be 200 times"):
        prepare_image(Image.new("RGB", (100_000, 1)), ImageFit(side=24, fit=fit, **PLAIN))


@pytest.mark.parametrize("score", SCORES)
def test_the_gradient_is_that_of_finite_differences(score: str, bundles):
    scorer = DifferentiableDual(load_tiny(bundles[score], torch.float64), batch=2)
    scorer.judge.double()
    pixels = (0.1 + 0.8 * noise(3)).double().requires_grad_()
    utilities = scorer.utilities(PROMPT, pixels)
    utilities[1].backward()
    assert pixels.grad is not None
    direction = torch.randn(3, 40, 33, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = [pixels.detach().clone() for _ in range(2)]
    for sign, image in zip((1, -1), moved, strict=True):
        image[1] += sign * 1e-3 * direction
    high, low = (float(scorer.utilities(PROMPT, image)[1]) for image in moved)
    slope = float((pixels.grad[1] * direction).sum())
    assert slope == pytest.approx((high - low) / 2e-3, rel=2e-2, abs=1e-4) and abs(slope) > 1e-3
    assert not pixels.grad[0].any() and not pixels.grad[2].any()


@pytest.mark.parametrize("score", SCORES)
def test_utilities_are_those_of_prepared_images_and_weights_get_no_gradient(score: str, bundles):
    scorer = DifferentiableDual(load_tiny(bundles[score]))
    assert isinstance(scorer, DifferentiableScorer)
    judge, pixels = scorer.judge, noise(5, 28, 28).requires_grad_()
    utilities = scorer.utilities(PROMPT, pixels)
    squares = torch.stack([prepare_image(as_image(image), judge.spec.image) for image in pixels.detach()])
    with torch.no_grad():
        expected = judge.utilities(judge.encode_images(squares), judge.encode_text(PROMPT))
    torch.testing.assert_close(utilities.detach(), expected, rtol=1e-5, atol=1e-5)
    utilities.sum().backward()
    assert pixels.grad is not None and (pixels.grad.flatten(1).abs().amax(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert not scorer.utilities(PROMPT, pixels.detach()).requires_grad


def test_memory_does_not_decide_the_gradient(bundles):
    found = []
    for batch in (1, 5):
        pixels = noise(5).requires_grad_()
        scorer = DifferentiableDual(load_tiny(bundles["similarity"]), batch=batch)
        scorer.utilities(PROMPT, pixels).sum().backward()
        found.append(pixels.grad)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def test_a_temperature_divides_and_a_power_compares(bundles):
    judge = load_tiny(bundles["similarity"])
    pixels = noise(3).requires_grad_()
    plain = DifferentiableDual(judge).utilities(PROMPT, pixels).detach()
    halved = DifferentiableDual(judge, calibration=TemperatureScaling(temperature=2.0))
    torch.testing.assert_close(halved.utilities(PROMPT, pixels), plain / 2)
    power = PowerScaling(temperature=0.7, power=1.5)
    found = DifferentiableDual(judge, calibration=power).utilities(PROMPT, pixels)
    z_KK = torch.tensor(power.apply((plain[:, None] - plain[None, :]).double().numpy()))
    torch.testing.assert_close(found.detach().double(), z_KK.sum(dim=1) / 2, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0
    with pytest.raises(ScoringError, match="there is one candidate"):
        DifferentiableDual(judge, calibration=power).utilities(PROMPT, noise(1))


def test_bad_input_is_refused(bundles):
    judge = load_tiny(bundles["similarity"])
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        DifferentiableDual(judge, batch=0)
    with pytest.raises(MediaError, match=r"pixels are in \[0, 1\]"):
        DifferentiableDual(judge).utilities(PROMPT, 255 * noise(2))
    with pytest.raises(RecordError, match="not valid text"):
        DifferentiableDual(judge).utilities("\ud800", noise(2))
