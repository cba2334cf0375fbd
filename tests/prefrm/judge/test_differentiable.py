"""Utilities with a gradient: against the engine, against finite differences, and what is refused."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.bundle import CalibrationRecord, write_bundle
from prefrm.differentiable import DifferentiableScorer
from prefrm.engine import Engine
from prefrm.errors import ConfigError, MediaError, RecordError, ScoringError
from prefrm.judge import DifferentiableJudge, Judge, JudgeSpec, log_odds
from prefrm.media import encode_png
from prefrm.winmatrix import CalibrationMap, Group, PowerScaling, TemperatureScaling, WinMatrix
from prefrm.winmatrix.calibration import CALIBRATION_MAPS
from tests.prefrm.candidates import noise_png
from tests.prefrm.judge.families import TINY, save_checkpoint

PROMPT = "two dogs and a red kite"
KINDS = {
    "late": {},
    "joint": {"attention": "joint"},
    "scalar": {"head": "scalar"},
    "embedding": {"head": "embedding"},
}
OTHERS = {
    "mlp": {
        "head": "scalar",
        "mlp": (8, 4),
        "uncertainty": "ignore",
        "positions": "sequential",
        "readouts": ("<|Reward|>",),
        "template": "rate-token-v1",
    },
    "uncertain": {"head": "scalar", "mlp": (8, 4), "uncertainty": "integrate"},
    "answers": {"head": "scalar", "template": "shows-v1"},
    "labels": {"attention": "joint", "min_label_mass": 0.0},
}
EDITS = {"late": {"template": "fit-late-v1"}, "scalar": {"head": "scalar", "template": "fit-alone-v1"}}
TIES = {"late ties": {"ties": True}, "scalar ties": {"head": "scalar", "ties": True}}
CALIBRATIONS = [TemperatureScaling(temperature=0.6), PowerScaling(temperature=0.6, power=1.4)]
CASES = [(family, kind) for family in TINY for kind in KINDS]
SIZES = [(48, 32), (40, 70), (16, 16), (90, 21)]
ROUNDING = {"idefics3": 2.0, "smolvlm": 2.0}
"""How many of 255 levels a prepared pixel differs from the image processor's in these tests: 1.13 by one
bicubic resize, whatever the image is, and less than 2 by three Lanczos resizes of these images."""
UNCHANGED: dict[str, tuple[tuple[int, int], dict[str, int]]] = {
    "llava_onevision": ((16, 16), {}),
    "idefics3": ((16, 16), {"max_pixels": 16 * 16}),
    "smolvlm": ((16, 16), {"max_pixels": 16 * 16}),
}
"""Sizes of images that a judge, with this pixel budget, does not resize; of the families of Qwen 48 x 32."""
STEP = 1e-3
"""Of finite differences, in pixels."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_checkpoint(tmp_path_factory.mktemp(name), name) for name in TINY}


@pytest.fixture(scope="module")
def judges(checkpoints) -> Callable[..., Judge]:
    """Untrained judges, which tests share and do not change: `judges(family, dtype, **fields)`."""
    return cache(partial(build, checkpoints))


def build(checkpoints: dict[str, Path], family: str, dtype: torch.dtype = torch.float32, **fields) -> Judge:
    torch.manual_seed(0)
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoints[family]), **fields), "cpu", dtype)
    with torch.no_grad():
        # Random weights have faint opinions, above all of pairs.
        judge.head.log_scale.add_(4.0 if judge.spec.is_pairwise else 1.0)
    return judge


def candidates(count: int, size: tuple[int, int] = (48, 32)) -> torch.Tensor:
    """Random images [K, 3, H, W] of 8 bits, smooth enough to be told apart when they are small."""
    torch.manual_seed(1)
    coarse = torch.nn.functional.interpolate(torch.rand(count, 3, 5, 5), size, mode="bilinear")
    return (255 * (0.8 * coarse + 0.2 * torch.rand(count, 3, *size))).round() / 255


def as_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((255 * pixels).round().to(torch.uint8).permute(1, 2, 0).numpy())


def judged(
    judge: Judge, pixels: torch.Tensor, calibration: CalibrationMap | None = None, **inputs
) -> WinMatrix:
    images = tuple(encode_png(as_image(image)) for image in pixels)
    group = Group(prompt=PROMPT, candidates=images, **inputs)
    return Engine(judge, calibration=calibration).score([group])[0]


def mean_log_odds(matrix: WinMatrix) -> np.ndarray:
    """Of each candidate against the others."""
    log_odds = np.log(matrix.p.astype(np.float64)) - np.log(matrix.p.T.astype(np.float64))
    return log_odds.sum(axis=1) / (matrix.size - 1)


def gaps(utilities: torch.Tensor) -> np.ndarray:
    """The mean of each utility's differences to the others, which is what a scalar judge's log-odds say."""
    u = utilities.double().numpy()
    return (u - u.mean()) * len(u) / (len(u) - 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", TINY)
def test_pixels_are_prepared_as_by_the_image_processor(judges, family: str, size: tuple[int, int]):
    processor = judges(family).processor
    (pixels,) = candidates(1, size)
    expected, found = processor.prepare_image(as_image(pixels)), processor.prepare_pixels(pixels)
    assert (found.grid, found.ids, found.pixels.shape) == (expected.grid, expected.ids, expected.pixels.shape)
    level = processor.image_processor.rescale_factor / min(processor.image_processor.image_std)
    off = (found.pixels - expected.pixels).abs().max().item() / level
    assert off < ROUNDING.get(family, 1.13)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_engine_agrees_on_images_that_are_not_resized(judges, family: str, kind: str):
    size, budget = UNCHANGED.get(family, ((48, 32), {}))
    judge, pixels = judges(family, **KINDS[kind], **budget), candidates(3, size)
    wanted = mean_log_odds(judged(judge, pixels))
    scorer = DifferentiableJudge(judge)
    assert isinstance(scorer, DifferentiableScorer)
    utilities = scorer.utilities(PROMPT, pixels)
    assert utilities.dtype == torch.float32 and not utilities.requires_grad
    found = gaps(utilities) if kind == "scalar" else utilities.numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5)
    # Of which the tolerance is a small part.
    assert np.abs(wanted).max() > 5e-3


@pytest.mark.parametrize("kind", OTHERS)
def test_the_engine_agrees_on_other_heads(judges, kind: str):
    judge, pixels = judges("qwen2_5_vl", **OTHERS[kind]), candidates(3)
    wanted = mean_log_odds(judged(judge, pixels))
    pixels.requires_grad_()
    utilities = DifferentiableJudge(judge).utilities(PROMPT, pixels)
    found = utilities.detach()
    np.testing.assert_allclose(
        gaps(found) if kind in ("mlp", "answers") else found, wanted, rtol=0, atol=5e-5
    )
    assert np.abs(wanted).max() > 5e-3
    (slopes,) = torch.autograd.grad(utilities[1], pixels)
    assert slopes[1].abs().max() > 0 and not slopes[[0, 2]].any()


@pytest.mark.parametrize("family", TINY)
def test_rounding_of_resized_images_moves_utilities_little(judges, family: str):
    judge, pixels = judges(family, head="scalar"), candidates(3, (40, 70))
    wanted = mean_log_odds(judged(judge, pixels))
    off = gaps(DifferentiableJudge(judge).utilities(PROMPT, pixels)) - wanted
    assert np.abs(off).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", TIES)
def test_the_engine_agrees_on_judges_with_ties(judges, kind: str):
    judge, pixels = judges("qwen2_5_vl", **TIES[kind]), candidates(3)
    found = DifferentiableJudge(judge).utilities(PROMPT, pixels)
    if not judge.spec.is_pairwise:
        # A utility is of a strict preference; half of each tie flattens the engine's log-odds.
        pairs_N2 = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        z_N, _ = log_odds(judge.outcomes(found, pairs_N2))
        found = z_N.view(3, 3).sum(dim=1) / 2
    np.testing.assert_allclose(found.detach(), mean_log_odds(judged(judge, pixels)), rtol=0, atol=1e-4)


def source_and_criterion(seed: int = 2) -> dict[str, object]:
    """What an edit has besides its candidates."""
    return {"context": (noise_png(seed, 32, 48),), "criterion": "hue"}


@pytest.mark.parametrize("kind", EDITS)
def test_the_engine_agrees_on_edits(judges, kind: str):
    judge, pixels = judges("qwen2_5_vl", **EDITS[kind]), candidates(3)
    scorer, inputs = DifferentiableJudge(judge), source_and_criterion()
    found = scorer.utilities(PROMPT, pixels, **inputs)
    wanted = mean_log_odds(judged(judge, pixels, **inputs))
    np.testing.assert_allclose(gaps(found) if kind == "scalar" else found, wanted, rtol=0, atol=1e-4)
    for other in ({"criterion": ""}, {"context": ()}, {"context": source_and_criterion(3)["context"]}):
        assert (found - scorer.utilities(PROMPT, pixels, **inputs | other)).abs().max() > 1e-3


def test_a_judge_of_texts_has_no_gradient_in_pixels(judges):
    with pytest.raises(ConfigError, match="needs a judge of images; this one compares texts"):
        DifferentiableJudge(judges("qwen2_5_vl", kind="text"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda calibration: calibration.name)
def test_a_calibration_is_applied_as_by_the_engine(judges, kind: str, calibration: CalibrationMap):
    assert {one.name for one in CALIBRATIONS} == set(CALIBRATION_MAPS)
    judge, pixels = judges("qwen2_5_vl", **KINDS[kind]), candidates(3)
    found = DifferentiableJudge(judge, calibration=calibration).utilities(PROMPT, pixels)
    found = gaps(found) if (kind, calibration.name) == ("scalar", "temperature") else found
    wanted = mean_log_odds(judged(judge, pixels, calibration))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("fields", "calibration"),
    [
        *((fields, None) for fields in (*KINDS.values(), *EDITS.values())),
        *((KINDS["scalar"], one) for one in CALIBRATIONS),
    ],
    ids=str,
)
def test_the_gradient_is_that_of_finite_differences(judges, fields: dict[str, str], calibration):
    """In float64 but for the head and the rotary positions; along a change of one candidate."""
    judge = judges("qwen2_5_vl", torch.float64, **fields)
    inputs = source_and_criterion() if judge.processor.inputs.context else {}
    scorer = DifferentiableJudge(judge, calibration=calibration, batch=2)
    # Of a size that is resized, and away from black and white.
    pixels = (0.1 + 0.8 * candidates(3, (40, 70))).double().requires_grad_()
    (slopes,) = torch.autograd.grad(scorer.utilities(PROMPT, pixels, **inputs).sum(), pixels)
    change = torch.zeros_like(pixels)
    change[1] = torch.rand_like(change[1]) * slopes[1].sign()

    def at(step: float) -> float:
        with torch.no_grad():
            return scorer.utilities(PROMPT, pixels + step * change, **inputs)[1].item()

    h = STEP
    found = (8 * (at(h) - at(-h)) - at(2 * h) + at(-2 * h)) / (12 * h)
    assert found == pytest.approx((slopes * change).sum().item(), rel=1e-3)


def test_a_utility_has_a_gradient_in_its_own_candidate_alone(judges):
    judge, pixels = judges("qwen2_5_vl"), candidates(3).requires_grad_()
    utilities = DifferentiableJudge(judge).utilities(PROMPT, pixels)
    (slopes,) = torch.autograd.grad(utilities[1], pixels)
    assert slopes[1].abs().max() > 0 and not slopes[[0, 2]].any()
    # With a gradient in both sides of each pair, there would be none in the sum.
    assert abs(utilities.sum().item()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_no_size_of_a_block_changes_anything(judges, kind: str):
    judge = judges("qwen2_5_vl", **KINDS[kind])
    found = []
    for batch in (2, 8):
        pixels = candidates(3).requires_grad_()
        utilities = DifferentiableJudge(judge, batch=batch).utilities(PROMPT, pixels)
        (utilities * torch.arange(1, 4)).sum().backward()
        found.append((utilities.detach(), pixels.grad))
    (utilities, slopes), (wanted, wanted_slopes) = found
    torch.testing.assert_close(utilities, wanted, rtol=0, atol=1e-4)
    largest = wanted_slopes.abs().max().item()
    torch.testing.assert_close(slopes, wanted_slopes, rtol=0, atol=1e-4 * largest)


def test_memory_does_not_grow_with_the_group(checkpoints):
    """It follows the images of a pass of the vision tower, and the tokens of one of the language model."""
    judge = build(checkpoints, "qwen2_5_vl")
    scorer, images, tokens = DifferentiableJudge(judge, batch=2), [], []
    judge.model.get_submodule(judge.family.vision_tower).register_forward_pre_hook(
        lambda module, args, kwargs: images.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    judge.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    largest = []
    for count in (4, 6):
        images.clear()
        tokens.clear()
        scorer.utilities(PROMPT, candidates(count).requires_grad_())
        largest.append((max(images), max(tokens)))
    assert largest[0] == largest[1] and largest[0][0] == 2


def test_parameters_get_no_gradient(checkpoints):
    judge, pixels = build(checkpoints, "qwen2_5_vl").train(), candidates(2).requires_grad_()
    DifferentiableJudge(judge).utilities(PROMPT, pixels).sum().backward()
    assert pixels.grad.abs().max() > 0
    assert not judge.training
    assert all(one.grad is None and not one.requires_grad for one in judge.parameters())


def test_pixels_of_half_precision_and_an_autocast_around(judges):
    scorer = DifferentiableJudge(judges("qwen2_5_vl"))
    pixels = candidates(2).bfloat16()
    wanted = scorer.utilities(PROMPT, pixels.float())
    pixels.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        utilities = scorer.utilities(PROMPT, pixels)
    assert torch.equal(utilities, wanted)
    utilities.sum().backward()
    assert pixels.grad.dtype == torch.bfloat16 and pixels.grad.abs().max() > 0


def test_one_candidate_needs_a_scalar_judge_that_has_its_own_utility(judges):
    pixels = candidates(1)
    scalar = judges("qwen2_5_vl", head="scalar")
    assert DifferentiableJudge(scalar).utilities(PROMPT, pixels).shape == (1,)
    with pytest.raises(ScoringError, match="there is one candidate; pass two or more"):
        DifferentiableJudge(scalar, calibration=CALIBRATIONS[1]).utilities(PROMPT, pixels)
    for kind in ("late", "embedding"):
        scorer = DifferentiableJudge(judges("qwen2_5_vl", **KINDS[kind]))
        with pytest.raises(ScoringError, match="there is one candidate; pass two or more"):
            scorer.utilities(PROMPT, pixels)


@pytest.mark.parametrize(
    ("prompt", "pixels", "error", "message"),
    [
        (PROMPT, torch.zeros(3, 32, 32), ConfigError, r"shape \[K, 3, H, W\]; received torch.float32"),
        (PROMPT, torch.zeros(2, 1, 32, 32), ConfigError, r"received torch.float32 \[2, 1, 32, 32\]"),
        (PROMPT, torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ConfigError, "received torch.uint8"),
        (PROMPT, torch.full((2, 3, 32, 32), 255.0), MediaError, "values from 255 to 255; scale them first"),
        (PROMPT, torch.full((2, 3, 32, 32), torch.nan), MediaError, "values from nan to nan"),
        (PROMPT, torch.zeros(2, 3, 1, 300), MediaError, "the image cannot be prepared"),
        ("x" * 9000, torch.zeros(2, 3, 32, 32), RecordError, "shorten the prompt"),
        ("x" * 440, torch.zeros(2, 3, 64, 64), ScoringError, "the comparison has .* tokens"),
    ],
)
def test_what_cannot_be_judged_is_refused(judges, prompt: str, pixels, error, message: str):
    with pytest.raises(error, match=message):
        DifferentiableJudge(judges("qwen2_5_vl")).utilities(prompt, pixels)


def test_improbable_answers_have_no_gradient(judges):
    judge = judges("qwen2_5_vl", head="scalar", template="shows-v1", min_label_mass=0.9)
    with pytest.raises(ScoringError, match=r"less than min_label_mass=0\.9"):
        DifferentiableJudge(judge).utilities(PROMPT, candidates(2))


def test_settings_without_a_gradient_are_refused(checkpoints):
    judge = build(checkpoints, "qwen2_5_vl")
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        DifferentiableJudge(judge, batch=0)
    judge.processor.image_processor.resample = Image.Resampling.BOX
    with pytest.raises(ConfigError, match="set its resample to one of"):
        DifferentiableJudge(judge)
    judge.processor.image_processor.resample = Image.Resampling.BICUBIC
    judge.processor.image_processor.do_normalize = False
    with pytest.raises(ConfigError, match="settings that have no gradient here"):
        DifferentiableJudge(judge)


def test_a_bundle_comes_with_its_calibration(judges, tmp_path: Path):
    record = CalibrationRecord.of(CALIBRATIONS[1], split="validation", pairs=10)
    judge, folder = judges("qwen2_5_vl"), tmp_path / "bundle"
    write_bundle(folder, judge, calibration=record, data_fingerprint="f" * 64, metrics={}, card="# A judge\n")
    pixels = candidates(2)
    found = DifferentiableJudge.from_bundle(folder, device="cpu").utilities(PROMPT, pixels)
    wanted = DifferentiableJudge(judge, calibration=CALIBRATIONS[1]).utilities(PROMPT, pixels)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, DifferentiableJudge(judge).utilities(PROMPT, pixels))
