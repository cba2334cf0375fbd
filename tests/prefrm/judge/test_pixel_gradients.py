"""Utilities with a gradient in pixels: preprocessing against Pillow's, judges against the engine."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks

from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.prompts import sample_prompt
from data_recipes.shapes.render import render
from prefrm.bundle import write_bundle
from prefrm.differentiable import DifferentiableScorer
from prefrm.engine import Engine
from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge import DifferentiableJudge, Judge, JudgeSpec
from prefrm.manifest import CalibrationRecord
from prefrm.media import encode_png
from prefrm.winmatrix import Group, TemperatureScaling
from tests.prefrm.judge.families import SHORT, TINY, build_processor, save_checkpoint

PROMPT = "a red circle left of a blue square"
KINDS = {
    "scalar": {"head": "scalar"},
    "scalar, ties": {"head": "scalar", "ties": True},
    "embedding": {"head": "embedding"},
    "late": {},
    "joint": {"attention": "joint"},
    "late, ties": {"ties": True},
}
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# Levels of 255, at most: a resize rounds twice. Idefics3 resizes an image and then all of it once more.
LEVELS = dict.fromkeys(QWEN, 1.3) | {"llava_onevision": 1.3} | dict.fromkeys(("idefics3", "smolvlm"), 3.0)
SIZES = [(48, 32), (32, 32), (64, 16), (100, 70), (70, 100), (9, 7), (30, 200)]


def tensor_of(image: Image.Image) -> torch.Tensor:
    """Pixels [3, H, W] in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Colours that change smoothly, but for a black line."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    image.paste("black", (0, size[1] // 2, size[0], size[1] // 2 + 1))
    return image


def judge_on(folder: Path | str, dtype: str = "auto", **fields: object) -> Judge:
    torch.manual_seed(0)
    judge = Judge.from_base(JudgeSpec(base_model=str(folder), **fields), "cpu", dtype)
    # Random weights have faint opinions.
    with torch.no_grad():
        judge.head.log_scale.add_(1.0)
    return judge


def log_odds(engine: Engine, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """The engine's, float64 [K, K]."""
    group = Group(prompt=PROMPT, images=tuple(map(encode_png, pictures)))
    return torch.from_numpy(engine.score([group])[0].p.astype(np.float64)).logit()


def differences(utilities_K: torch.Tensor) -> torch.Tensor:
    utilities_K = utilities_K.detach().double()
    return utilities_K[:, None] - utilities_K


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_checkpoint(tmp_path_factory.mktemp(name), name)
        return made[name]

    return folder


@pytest.fixture
def pictures() -> list[Image.Image]:
    return [picture(seed, (100, 70)) for seed in range(3)]


@pytest.fixture
def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([tensor_of(image) for image in pictures]).requires_grad_()


@pytest.mark.parametrize(
    ("model_type", "split"), [*((name, True) for name in TINY), ("idefics3", False), ("smolvlm", False)]
)
def test_pixels_are_prepared_as_the_image_processor_prepares_pictures(model_type: str, split: bool):
    processor = build_processor(SHORT["alone"], model_type)
    if not split:
        processor.image_processor.do_image_splitting = False
    level = 1 / 255 / torch.tensor(processor.image_processor.image_std).min()
    for size in SIZES:
        image = picture(1, size)
        wanted, found = processor.prepare_image(image), processor.prepare_pixels(tensor_of(image))
        assert (found.grid, found.ids) == (wanted.grid, wanted.ids)
        gap = (found.pixels - wanted.pixels).abs()
        assert gap.max() < LEVELS[model_type] * level and gap.mean() < 0.6 * level


@pytest.mark.parametrize("model_type", QWEN)
def test_pixels_that_are_not_resized_are_equal(model_type: str):
    processor, image = build_processor(SHORT["alone"], model_type), picture(1, (48, 32))
    wanted, found = processor.prepare_image(image).pixels, processor.prepare_pixels(tensor_of(image)).pixels
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("resample", [f for f in Image.Resampling if f.name != "NEAREST"])
def test_white_stays_white_where_a_filter_overshoots(resample: Image.Resampling):
    from prefrm.judge.backbones.resampling import resized

    image = Image.new("RGB", (40, 40), "white")
    image.paste("black", (10, 10, 30, 30))
    wanted = tensor_of(image.resize((25, 61), resample))
    found = resized(tensor_of(image), 61, 25, resample)
    torch.testing.assert_close(found, wanted, atol=1.5 / 255, rtol=0)
    assert found[:, 0].eq(1).all()


@pytest.mark.parametrize("model_type", sorted(TINY))
def test_differences_are_the_log_odds_of_the_engine(folders, pictures, pixels, model_type: str):
    judge = judge_on(folders(model_type), head="scalar")
    wanted = log_odds(Engine(judge), pictures)
    scorer = DifferentiableJudge(judge)
    assert isinstance(scorer, DifferentiableScorer)
    torch.testing.assert_close(differences(scorer.utilities(PROMPT, pixels)), wanted, atol=0.02, rtol=0)
    assert wanted.abs().max() > 0.3


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"scalar", "scalar, ties"}))
def test_without_utilities_of_one_image_they_are_the_mean_log_odds(folders, pictures, pixels, kind: str):
    judge = judge_on(folders("qwen2_5_vl"), **KINDS[kind])
    wanted = log_odds(Engine(judge), pictures).sum(dim=1) / 2
    for fixed in (True, False):
        found = DifferentiableJudge(judge, fixed_opponents=fixed).utilities(PROMPT, pixels)
        torch.testing.assert_close(found.double(), wanted, atol=0.02, rtol=0)
    assert wanted.abs().max() > 0.1


@pytest.mark.parametrize("side", [64, 96])
def test_pictures_of_shapes_through_the_shipped_captioner(side: int):
    """Of its own size, and of another, from which they are reduced."""
    rng = np.random.default_rng(0)
    prompt = sample_prompt(rng, "two_objects")
    drawn = [render(scene).resize((side, side)) for scene in make_candidates(prompt, 4, rng)]
    judge = judge_on("shipped:shapes-captioner", head="scalar")
    group = Group(prompt=prompt.text, images=tuple(map(encode_png, drawn)))
    wanted = torch.from_numpy(Engine(judge).score([group])[0].p.astype(np.float64)).logit()
    pixels = torch.stack([tensor_of(image) for image in drawn]).requires_grad_()
    found = DifferentiableJudge(judge).utilities(prompt.text, pixels)
    tolerance = 1e-4 if side == 64 else 0.02
    torch.testing.assert_close(differences(found), wanted, atol=tolerance, rtol=0)
    assert wanted.abs().max() > 0.3
    found.sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad.flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("model_type", "kind"), [("qwen2_5_vl", kind) for kind in KINDS] + [(name, "scalar") for name in TINY]
)
def test_the_gradient_equals_finite_differences(folders, pixels, model_type: str, kind: str):
    """Of each candidate's utility in its own pixels; with a backbone in float64."""
    scorer = DifferentiableJudge(judge_on(folders(model_type), "float64", **KINDS[kind]))
    # Away from 0 and 1, where a resize is clipped.
    pixels_KCHW = (0.2 + 0.6 * pixels.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(scorer.utilities(PROMPT, pixels_KCHW).sum(), pixels_KCHW)
    step = 2e-3
    for k, gradient_CHW in enumerate(gradient):
        # Uphill, so that much changes.
        direction = torch.zeros_like(gradient)
        direction[k] = gradient_CHW.sign()
        with torch.no_grad():
            ahead, behind = (
                scorer.utilities(PROMPT, pixels_KCHW + sign * step * direction)[k] for sign in (1, -1)
            )
        slope = float(gradient_CHW.abs().sum())
        assert slope > 0.1
        assert float(ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.01)


@pytest.mark.parametrize("kind", ["embedding", "late", "joint"])
def test_through_all_candidates_the_mean_has_no_gradient(folders, pixels, kind: str):
    judge = judge_on(folders("qwen2_5_vl"), **KINDS[kind])

    def gradient(fixed: bool, weights_K: torch.Tensor) -> torch.Tensor:
        scorer = DifferentiableJudge(judge, fixed_opponents=fixed)
        return torch.autograd.grad(scorer.utilities(PROMPT, pixels) @ weights_K, pixels)[0]

    first, mean = torch.eye(3)[0], torch.ones(3) / 3
    scale = gradient(True, mean).abs().max()
    assert gradient(False, mean).abs().max() < 1e-4 * scale
    torch.testing.assert_close(gradient(False, first)[0], gradient(True, first)[0], atol=1e-4 * scale, rtol=0)
    assert gradient(True, first)[1:].eq(0).all() and gradient(False, first)[1:].ne(0).any()


def test_a_frozen_adapter_gets_no_gradient(adapted: Judge, pictures, pixels):
    assert any(parameter.requires_grad for parameter in adapted.parameters())
    wanted = log_odds(Engine(adapted), pictures).sum(dim=1) / 2
    found = DifferentiableJudge(adapted.train()).utilities(PROMPT, pixels)
    found.square().sum().backward()
    torch.testing.assert_close(found.detach().double(), wanted, atol=0.02, rtol=0)
    assert not adapted.training
    assert all(parameter.grad is None for parameter in adapted.parameters())
    assert pixels.grad is not None and pixels.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["scalar", "embedding", "late"])
def test_a_call_keeps_its_own_activations_until_backward(folders, pixels, kind: str):
    scorer = DifferentiableJudge(judge_on(folders("qwen2_5_vl"), **KINDS[kind]))
    saved: list[weakref.ref] = []

    class Saved:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            saved.append(weakref.ref(self))

    def alive() -> int:
        return sum(reference() is not None for reference in saved)

    with saved_tensors_hooks(Saved, lambda one: one.tensor):
        with torch.no_grad():
            without = scorer.utilities(PROMPT, pixels)
        assert not saved and not without.requires_grad
        first = scorer.utilities(PROMPT, pixels)
        of_one = alive()
        second = scorer.utilities(PROMPT[::-1], pixels)
    torch.testing.assert_close(first.detach(), without, atol=1e-5, rtol=0)
    assert alive() == 2 * of_one > 0
    del first
    assert alive() == of_one
    second.sum().backward()
    assert alive() == 0


def test_autocast_and_other_types_of_pixels_change_nothing(folders, pixels):
    scorer = DifferentiableJudge(judge_on(folders("qwen2_5_vl"), head="scalar"))
    wanted = scorer.utilities(PROMPT, pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scorer.utilities(PROMPT, pixels), wanted)
    doubles = pixels.detach().double().requires_grad_()
    found = scorer.utilities(PROMPT, doubles)
    assert torch.equal(found, wanted) and found.dtype == torch.float32
    found.sum().backward()
    assert doubles.grad is not None and doubles.grad.dtype == torch.float64


def test_utilities_of_a_bundle_are_not_calibrated(folders, pictures, pixels, tmp_path: Path):
    judge = judge_on(folders("qwen2_5_vl"), head="scalar")
    record = CalibrationRecord.of(TemperatureScaling(temperature=2.0), split="validation", pairs=9)
    write_bundle(tmp_path / "b", judge, calibration=record, data_fingerprint="", metrics={}, card="#")
    found = DifferentiableJudge.from_bundle(tmp_path / "b", device="cpu").utilities(PROMPT, pixels)
    assert torch.equal(found, DifferentiableJudge(judge).utilities(PROMPT, pixels))
    wanted = log_odds(Engine.from_bundle(tmp_path / "b", device="cpu"), pictures)
    torch.testing.assert_close(differences(found) / 2, wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("pixels", "prompt", "error", "message"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "x", ConfigError, r"floats \[K, 3, H, W\]; .*uint8"),
        (torch.zeros(3, 32, 32), "x", ConfigError, r"received torch.float32 \[3, 32, 32\]"),
        (torch.zeros(0, 3, 32, 32), "x", ConfigError, r"received torch.float32 \[0, 3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32), "x", ConfigError, "embedding head compares at least 2 .* received 1"),
        (torch.full((2, 3, 32, 32), 1.01), "x", MediaError, r"from 1.01 to 1.01; scale or clamp"),
        (torch.full((2, 3, 32, 32), float("nan")), "x", MediaError, "from nan to nan"),
        (torch.zeros(2, 3, 1, 300), "x", MediaError, "cannot be prepared .* aspect ratio"),
        (torch.zeros(2, 3, 32, 32), "x" * 600, RecordError, "the model reads 512"),
    ],
)
def test_what_it_cannot_take_is_one_line(folders, pixels, prompt: str, error: type, message: str):
    scorer = DifferentiableJudge(judge_on(folders("qwen2_5_vl"), head="embedding"))
    with pytest.raises(error, match=message):
        scorer.utilities(prompt, pixels)


def test_a_scalar_judge_takes_a_single_candidate(folders, pixels):
    scorer = DifferentiableJudge(judge_on(folders("qwen2_5_vl"), head="scalar"))
    together, alone = scorer.utilities(PROMPT, pixels), scorer.utilities(PROMPT, pixels[:1])
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_mean_grey_is_not_taken_for_padding(folders, model_type: str, size: tuple[int, int]):
    scorer = DifferentiableJudge(judge_on(folders(model_type), head="scalar"))
    grey, nearly = (scorer.utilities(PROMPT, torch.full((1, 3, *size), value)) for value in (0.5, 0.5 + 1e-5))
    torch.testing.assert_close(grey, nearly, atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["scalar", "late"])
def test_a_gpu_gives_about_the_same_gradient(folders, pixels, kind: str):
    folder = folders("qwen2_5_vl")
    reference = DifferentiableJudge(judge_on(folder, **KINDS[kind]))
    (wanted,) = torch.autograd.grad(reference.utilities(PROMPT, pixels).sum(), pixels)
    for dtype, least in (("float32", 0.999), ("bfloat16", 0.9)):
        scorer = DifferentiableJudge(judge_on(folder, dtype, **KINDS[kind]).to("cuda"))
        (found,) = torch.autograd.grad(scorer.utilities(PROMPT, pixels).sum(), pixels)
        assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > least
