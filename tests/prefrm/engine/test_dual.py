"""The scorer of dual encoders: matrices, what must not change them, and what is computed."""

import io
import math
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from prefrm.bundle import amend_bundle, read_manifest
from prefrm.engine import DualEngine, Engine, open_engine
from prefrm.errors import BundleError
from prefrm.judge.dual import DualJudge, TextTokenizer
from prefrm.judge.dual.pictures import prepare_image
from prefrm.manifest import CalibrationRecord, DualSpec, ImageFit, TextReading
from prefrm.media import decode, encode_png
from prefrm.pipeline import batched
from prefrm.scorers import open_scorer
from prefrm.winmatrix import CostedScorer, Group, TemperatureScaling
from tests.prefrm.imports.checkpoints import clip_tokenizer
from tests.prefrm.judge.dual import SCORES, import_tiny

PROMPT = "a red cube"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {score: import_tiny(name, tmp_path_factory.mktemp(score)) for score, name in SCORES.items()}


@pytest.fixture(scope="module", params=SCORES)
def engine(request, bundles) -> DualEngine:
    found = open_engine(bundles[request.param], device="cpu")
    assert isinstance(found, DualEngine)
    return found


@pytest.fixture
def make_group(png):
    def make(*seeds: int, prompt: str = PROMPT) -> Group:
        sizes = [(48, 32), (32, 32), (16, 64)]
        return Group(prompt=prompt, candidates=tuple(png(s, *sizes[s % 3]) for s in seeds))

    return make


def utility(engine: DualEngine, prompt: str, image: bytes) -> float:
    judge = engine.judge
    with torch.inference_mode():
        features = judge.encode_images(prepare_image(decode(image), judge.spec.image)[None])
        return float(judge.utilities(features, judge.encode_text(prompt))[0])


def test_a_matrix_holds_the_differences_of_utilities(engine: DualEngine, make_group):
    group = make_group(0, 1, 2)
    halved = DualEngine(engine.judge, calibration=TemperatureScaling(temperature=2.0)).score([group])[0]
    u = [utility(engine, group.prompt, image) for image in group.candidates if image]
    for i, j in permutations(range(3), 2):
        assert halved.p[i, j] == pytest.approx(1 / (1 + math.exp((u[j] - u[i]) / 2)), abs=1e-6)
    assert np.isnan(halved.order_gap[0, 1]) and halved.valid.all()


def test_a_call_has_as_many_groups_as_fill_a_pass(engine: DualEngine, make_group):
    assert isinstance(engine, CostedScorer)
    group = make_group(0, 1)
    # Of one image, which a pass has on a CPU.
    images = -(-3 * engine.cost(group) // engine.call_cost)
    three = DualEngine(engine.judge, images=images)
    assert [len(some) for some in batched(three, [group] * 7, list)] == [3, 3, 1]


def test_what_shares_a_call_changes_no_bit(engine: DualEngine, make_group):
    groups = [make_group(0, 1, 2, 3), make_group(3, 4, prompt="two dogs"), make_group(1, 0)]
    alone = [DualEngine(engine.judge, cache_bytes=0).score([group])[0] for group in groups]
    for matrices in (engine.score(groups), engine.score(groups[::-1])[::-1], engine.score(groups)):
        assert all(a.equals(b) for a, b in zip(matrices, alone, strict=True))


def test_a_permutation_permutes_the_matrix(engine: DualEngine, make_group):
    group, order = make_group(0, 1, 2, 1), [2, 0, 3, 1]
    matrix, permuted = engine.score([group, group.permuted(order)])
    assert permuted.equals(matrix.permuted(order)) and matrix.p[1, 3] == 0.5


def test_what_cannot_be_read_costs_its_own_pairs(engine: DualEngine, png):
    images = (png(1), None, b"no image", png(2), png(3, 600, 2))
    matrix, lost = engine.score(
        [Group(prompt=PROMPT, candidates=images), Group(prompt="\ud800", candidates=images)]
    )
    assert matrix.valid[0, 3] and not matrix.valid[[1, 2, 4]].any()
    assert matrix.errors[0] == "" and matrix.errors[1] == "the candidate is missing"
    assert "not a valid PNG" in matrix.errors[2] and "600 x 2 pixels" in matrix.errors[4]
    if engine.judge.spec.text is not None:
        assert not lost.valid.any() and "the prompt is not valid text" in lost.errors[0]


def test_what_the_judge_does_not_read_is_refused(engine: DualEngine, make_group, png):
    group = make_group(0, 1)
    others = [
        replace(group, context=(png(5),)),
        replace(group, criterion="colours"),
        Group(prompt=PROMPT, candidates=("a", "b")),
    ]
    (alone,) = engine.score([group])
    *refused, judged = engine.score([*others, group])
    assert judged.equals(alone)
    for matrix, other in zip(refused, others, strict=True):
        assert not matrix.valid.any() and set(matrix.errors) == {engine.inputs().refusal(other)}


def test_a_group_takes_one_encode_for_each_image_and_one_for_the_prompt(bundles, make_group, monkeypatch):
    engine = open_engine(bundles["similarity"], device="cpu")
    assert isinstance(engine, DualEngine)
    calls = []
    for name in ("get_image_features", "get_text_features"):
        own = getattr(engine.judge.model, name)

        def counted(x, own=own, name=name):
            calls.append((name, len(x)))
            return own(x)

        monkeypatch.setattr(engine.judge.model, name, counted)
    engine.score([make_group(*range(8))])
    assert calls == [("get_image_features", 1)] * 8 + [("get_text_features", 1)]
    assert (engine.cache.hits, engine.cache.misses) == (0, 8)
    engine.score([make_group(*range(8), prompt="another")])
    assert calls[9:] == [("get_text_features", 1)] and engine.cache.hits == 8


def test_passes_of_several_images_agree_with_single_ones(engine: DualEngine, make_group):
    groups = [make_group(0, 1, 2, 3, 4)]
    expected = engine.score(groups)[0]
    for deterministic in (False, True):
        found = DualEngine(engine.judge, images=3, deterministic=deterministic).score(groups)[0]
        np.testing.assert_allclose(found.p, expected.p, atol=1e-5)


def test_transparency_is_white_as_everywhere(engine: DualEngine, png):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 4), dtype=np.uint8)
    shown = Image.fromarray(pixels, "RGBA")
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    white = Image.new("RGBA", shown.size, "white")
    white.alpha_composite(shown)
    other = png(1)
    clear, flat = engine.score(
        [
            Group(prompt=PROMPT, candidates=(data, other))
            for data in (buffer.getvalue(), encode_png(white.convert("RGB")))
        ]
    )
    assert clear.equals(flat) and clear.valid.all()


def test_an_image_decoded_ahead_is_not_decoded_again(engine: DualEngine, make_group, monkeypatch):
    group = make_group(20, 21)
    expected = DualEngine(engine.judge).score([group])[0]
    fresh = DualEngine(engine.judge)
    kept = [fresh.prepare(image) for image in group.candidates if image]
    monkeypatch.setattr("prefrm.engine.dual.decode", None)
    assert fresh.score([group])[0].equals(expected) and len(kept) == 2


def test_other_groups_are_let_in_between_passes(engine: DualEngine, make_group):
    inner = make_group(30, 31)
    fresh = DualEngine(engine.judge)
    expected = DualEngine(engine.judge).score([inner])[0]
    let_in = []

    def enter() -> None:
        if not let_in:
            let_in.append(True)
            let_in.extend(fresh.score([inner]))

    fresh.on_pass = enter
    outer = fresh.score([make_group(32, 33)])[0]
    assert let_in[1].equals(expected) and outer.valid.all()


def test_a_utility_that_is_not_finite_is_not_judged(bundles, make_group):
    engine = open_engine(bundles["aesthetic"], device="cpu")
    with torch.no_grad():
        engine.judge.head.bias.fill_(math.inf)
    matrix = engine.score([make_group(0, 1)])[0]
    assert not matrix.valid.any() and matrix.errors[0] == "its utility is inf"


def test_the_cost_grows_with_images_and_pixels(engine: DualEngine, make_group, png):
    small = engine.cost(make_group(0, 1))
    assert 0 < small < engine.cost(make_group(0, 1, 2, 3))
    large = Group(prompt=PROMPT, candidates=(png(0, 800, 800), png(1, 800, 800)))
    assert engine.cost(large) > small + 1000
    assert engine.cost(Group(prompt="", candidates=(None, b"x"))) == 1 or engine.judge.spec.text is not None


def test_a_bundle_is_opened_by_its_kind_and_with_its_calibration(bundles, tmp_path: Path, make_group):
    record = CalibrationRecord.of(TemperatureScaling(temperature=3.0), split="validation", pairs=10)
    amend_bundle(bundles["similarity"], calibration=record, metrics={}, card="# x\n", out=tmp_path / "b")
    with open_scorer(tmp_path / "b") as scorer:
        found = scorer.score([make_group(0, 1)])[0]
        assert scorer.identity() == read_manifest(tmp_path / "b").digest
    plain = open_engine(bundles["similarity"]).score([make_group(0, 1)])[0]
    odds = [math.log(one.p[0, 1] / one.p[1, 0]) for one in (found, plain)]
    assert odds[0] == pytest.approx(odds[1] / 3, rel=1e-3)
    with pytest.raises(BundleError, match="holds a dual encoder"):
        Engine.from_bundle(tmp_path / "b")


def test_the_gradient_has_the_calibration_and_waits_for_the_engine(bundles, make_group):
    engine = open_engine(bundles["similarity"], device="cpu")
    calibrated = DualEngine(engine.judge, calibration=TemperatureScaling(temperature=2.0))
    pixels = torch.rand(2, 3, 28, 28).requires_grad_()
    plain, halved = (one.differentiable().utilities(PROMPT, pixels) for one in (engine, calibrated))
    torch.testing.assert_close(halved, plain / 2)
    halved.sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0
    assert engine.score([make_group(0, 1)])[0].valid.all()


@pytest.mark.slow
def test_a_group_of_8_costs_little_more_than_9_encodes(png):
    """CPU time, in an encoder large enough for its encodes to take tens of milliseconds."""
    vision = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "image_size": 224,
        "patch_size": 32,
    }
    texts = clip_tokenizer()
    text = {"vocab_size": len(texts), "eos_token_id": texts.eos_token_id, "bos_token_id": texts.bos_token_id}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    square = ImageFit(side=224, fit="crop", mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    spec = DualSpec(base_model="x", score="similarity", image=square, text=TextReading(tokens=77))
    tokenizer = TextTokenizer(texts.backend_tokenizer, TextReading(tokens=77))
    judge = DualJudge(model, None, tokenizer, spec, "0" * 64)
    engine = DualEngine(judge, cache_bytes=0)
    group = Group(prompt=PROMPT, candidates=tuple(png(n, 256, 256) for n in range(8)))
    pixels = [prepare_image(decode(image), square)[None] for image in group.candidates if image]
    ids = tokenizer(PROMPT)[None]

    def nine_encodes() -> None:
        with torch.inference_mode():
            for one in pixels:
                model.get_image_features(one)
            model.get_text_features(ids)

    found: dict[object, list[float]] = {}
    for _ in range(3):
        for work in (nine_encodes, lambda: engine.score([group])):
            began = time.process_time()
            work()
            found.setdefault(work.__name__, []).append(time.process_time() - began)
    bare, whole = (min(seconds) for seconds in found.values())
    assert whole < 1.3 * bare
