"""Dual encoders against references written from the published descriptions, and the traps of each."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer, Siglip2Tokenizer, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from prefrm.bundle import load_dual_bundle
from prefrm.errors import ConfigError
from prefrm.imports import hpsv2
from prefrm.imports import imagereward as imagereward_import
from prefrm.imports.importing import import_judge
from prefrm.judge.dual import DualJudge
from prefrm.judge.dual.pictures import prepare_image
from tests.prefrm.imports import checkpoints, references
from tests.prefrm.imports.references import MEAN, STD

PROMPT = "A red CUBE  on a blue table"
LONG = "red cube " * 60
SIDE = checkpoints.SIDE
SCALE = math.exp(3)


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Of the last one, half of 3 pixels is cut off at each side.
PICTURES = [picture(0, 60, 31), picture(1, 28, 28), picture(2, 33, 97), picture(3, 1, 1), picture(4, 31, 28)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_siglip2(tmp_path_factory.mktemp("siglip2"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    checkpoints.bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., DualJudge]:
    """Imports a judge and loads its bundle: `imported("pickscore", source, base=folder)`."""

    def make(name: str, source: Path, base: Path | None = None) -> DualJudge:
        import_judge(name, str(source), tmp_path / "b", base=None if base is None else str(base))
        return load_dual_bundle(tmp_path / "b", "cpu").judge

    return make


def utilities(judge: DualJudge, prompt: str) -> torch.Tensor:
    pixels = torch.stack([prepare_image(image, judge.spec.image) for image in PICTURES])
    with torch.inference_mode():
        return judge.utilities(judge.encode_images(pixels), judge.encode_text(prompt))


def check(found: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
    """Equal to 1e-6 of the scale of a cosine; and the pictures differ, so that equality means something."""
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-6, rtol=1e-6)
    assert float(expected.std()) > 1e-2 * scale


@pytest.mark.parametrize("name", ["pickscore", "clipscore"])
@pytest.mark.parametrize("prompt", [PROMPT, LONG])
def test_a_clip_gives_the_logits_of_transformers(clip: Path, imported, name: str, prompt: str):
    model = CLIPModel.from_pretrained(clip).eval()
    texts = CLIPTokenizer.from_pretrained(clip)(
        [prompt], padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    images = CLIPImageProcessorPil.from_pretrained(clip)(PICTURES, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**texts, **images).logits_per_text[0]
    check(utilities(imported(name, clip), prompt), expected, SCALE)


@pytest.mark.parametrize("prompt", ["a red cube", "A Red, CUBE!", "red cube " * 20])
def test_siglip_gives_the_logits_of_transformers_for_padded_texts(siglip: Path, imported, prompt: str):
    tokenizer = checkpoints.unigram_tokenizer()
    ids = tokenizer.encode(re.sub("[,!]", "", prompt.lower()).strip()).ids
    ids = ids if len(ids) <= 64 else [*ids[:63], 1]
    padded = torch.tensor([[*ids, *[1] * (64 - len(ids))]])
    images = SiglipImageProcessorPil.from_pretrained(siglip)(PICTURES, return_tensors="pt")
    model = SiglipModel.from_pretrained(siglip).eval()
    with torch.inference_mode():
        expected = model(input_ids=padded, **images).logits_per_text[0] - model.logit_bias
        unpadded = model(input_ids=torch.tensor([ids]), **images).logits_per_text[0] - model.logit_bias
    check(utilities(imported("siglip", siglip), prompt), expected, float(model.logit_scale.detach().exp()))
    if len(ids) < 64:
        assert not torch.allclose(unpadded, expected, rtol=1e-3)


@pytest.mark.parametrize("prompt", ["a red cube", "A Red, CUBE!", "red cube " * 20])
def test_siglip_2_gives_the_logits_of_transformers(siglip2: Path, imported, prompt: str):
    tokenizer = Siglip2Tokenizer.from_pretrained(siglip2)
    texts = tokenizer([prompt], padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    images = SiglipImageProcessorPil.from_pretrained(siglip2)(PICTURES, return_tensors="pt")
    model = SiglipModel.from_pretrained(siglip2).eval()
    with torch.inference_mode():
        expected = model(input_ids=texts.input_ids, **images).logits_per_text[0] - model.logit_bias
    check(utilities(imported("siglip", siglip2), prompt), expected, float(model.logit_scale.detach().exp()))


def openclip(w: references.Weights, prompt: str) -> torch.Tensor:
    """HPSv2's logits of `PICTURES`."""
    ids = checkpoints.clip_tokenizer()(prompt, truncation=True, max_length=77).input_ids
    pixels = (torch.stack([letterboxed(image) for image in PICTURES]) - MEAN) / STD
    images = normalize(references.openclip_image(w, pixels), dim=-1)
    text = references.openclip_text(w, torch.tensor([*ids, *[0] * (77 - len(ids))]))
    return w["logit_scale"].exp() * images @ normalize(text, dim=-1)


def letterboxed(image: Image.Image) -> torch.Tensor:
    """Pixels [3, S, S] in about [0, 1]: the longer side scaled in floating point, black around."""
    scale = SIDE / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    channels = [
        Image.fromarray(np.asarray(band, dtype=np.float32) / 255).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for band in image.split()
    ]
    square = torch.zeros(3, SIDE, SIDE)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    square[:, top : top + height, left : left + width] = torch.tensor(np.stack(channels))
    return square


@pytest.fixture(scope="module")
def hps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"epoch": 1, "state_dict": checkpoints.openclip_weights()}, folder / "HPS_v2.1_compressed.pt")
    return folder


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
def test_hpsv2_is_openclip_with_letterboxed_images(hps: Path, clip: Path, imported, prompt: str):
    judge = imported("hpsv2.1", hps, clip)
    check(utilities(judge, prompt), openclip(checkpoints.openclip_weights(), prompt), SCALE)


@pytest.mark.parametrize(("trap", "value"), [("HEADS", 8), ("NORM_EPS", 1e-4), ("ACTIVATION", "quick_gelu")])
def test_what_no_shape_of_hpsv2_tells_counts(trap: str, value, hps: Path, clip: Path, imported, monkeypatch):
    monkeypatch.setattr(hpsv2, trap, value)
    found = utilities(imported("hpsv2.1", hps, clip), PROMPT)
    with pytest.raises(AssertionError, match="not close"):
        check(found, openclip(checkpoints.openclip_weights(), PROMPT), SCALE)


def test_html_entities_are_resolved_as_openclip_does(hps: Path, clip: Path, imported):
    judge = imported("hpsv2.1", hps, clip)
    assert judge.tokenizer is not None
    assert torch.equal(judge.tokenizer("salt &amp;amp; pepper "), judge.tokenizer("salt & pepper"))


def test_hpsv2_from_safetensors_without_the_wrapper_is_the_same(
    hps: Path, clip: Path, imported, tmp_path: Path
):
    before = utilities(imported("hpsv2.1", hps / "HPS_v2.1_compressed.pt", clip), PROMPT)
    weights = {name: tensor.contiguous() for name, tensor in checkpoints.openclip_weights().items()}
    save_file(weights, tmp_path / "HPS.safetensors")
    assert torch.equal(utilities(imported("hpsv2", tmp_path / "HPS.safetensors", clip), PROMPT), before)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    torch.save(checkpoints.imagereward_weights(), folder / "ImageReward.pt")
    return folder


def expected_reward(prompt: str) -> torch.Tensor:
    texts = checkpoints.bert_tokenizer()(
        prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    pixels = (torch.stack([cropped(image) for image in PICTURES]) - MEAN) / STD
    weights = checkpoints.imagereward_weights()
    return references.imagereward(weights, pixels, texts.input_ids[0], texts.attention_mask[0].bool())


def cropped(image: Image.Image) -> torch.Tensor:
    """As torchvision's Resize(S, bicubic), CenterCrop(S) and ToTensor."""
    short, long = sorted(image.size)
    size = (SIDE, int(SIDE * long / short))
    image = image.resize(size if image.width <= image.height else size[::-1], Image.Resampling.BICUBIC)
    left, top = (round((side - SIDE) / 2.0) for side in image.size)
    return torch.tensor(np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
def test_imagereward_is_blip_and_five_layers(reward: Path, bert: Path, imported, prompt: str):
    check(utilities(imported("imagereward", reward, bert), prompt), expected_reward(prompt))


@pytest.mark.parametrize(
    ("trap", "value"),
    [("VISION_HEADS", 8), ("TEXT_HEADS", 8), ("VISION_EPS", 1e-4), ("TEXT_EPS", 1e-4), ("WORD_PIECES", 34)],
)
def test_what_no_shape_of_imagereward_tells_counts(
    trap: str, value, reward: Path, bert: Path, imported, monkeypatch
):
    monkeypatch.setattr(imagereward_import, trap, value)
    found = utilities(imported("imagereward", reward, bert), LONG)
    with pytest.raises(AssertionError, match="not close"):
        check(found, expected_reward(LONG))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aesthetic") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(checkpoints.noise(checkpoints.mlp_shapes("layers.", 8)), path)
    return path


def test_the_aesthetic_predictor_reads_normalized_embeddings(predictor: Path, clip: Path, imported):
    judge = imported("aesthetic", predictor, clip)
    model = CLIPModel.from_pretrained(clip).eval()
    pixels = (torch.stack([cropped(image) for image in PICTURES]) - MEAN) / STD
    with torch.inference_mode():
        embeddings = normalize(model.get_image_features(pixels).pooler_output, dim=-1)
    expected = references.mlp(torch.load(predictor, weights_only=True), "layers.", embeddings)
    check(utilities(judge, PROMPT), expected)
    assert torch.equal(utilities(judge, PROMPT), utilities(judge, "another prompt"))


def test_each_bundle_names_all_that_it_was_made_of(predictor: Path, clip: Path, tmp_path: Path):
    manifest = import_judge("aesthetic", str(predictor), tmp_path / "b", base=str(clip))
    assert manifest.origin is not None
    of_base = {f"{clip.name}/{path.name}" for path in clip.iterdir()}
    assert manifest.origin.base == clip.name and set(manifest.origin.sha256) == {predictor.name} | of_base


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("hpsv2.1", {"visual.proj": None}, r"1 missing \(visual_projection.weight"),
        ("hpsv2.1", {"visual.head": torch.zeros(2)}, r"1 unknown weights \(visual.head"),
        ("hpsv2.1", {"ln_final.bias": torch.zeros(3)}, r"final_layer_norm.bias is \[3\] instead of \[16\]"),
        ("imagereward", {"mlp.layers.6.bias": None}, "no mlp.layers.6.bias"),
        ("imagereward", {"blip.visual_encoder.norm.bias": None}, "1 missing .*post_layernorm.bias"),
        ("imagereward", {"mlp.layers.1.weight": torch.zeros(2)}, r"1 unknown weights \(mlp.layers.1.weight"),
        ("imagereward", {"mlp.layers.7.weight": torch.zeros(1, 5)}, "it reads 6 numbers"),
    ],
)
def test_each_wrong_key_is_refused_by_its_name(
    name: str, changed: dict, message: str, clip: Path, bert: Path, tmp_path: Path
):
    makers = {"hpsv2.1": checkpoints.openclip_weights, "imagereward": checkpoints.imagereward_weights}
    weights = {key: tensor for key, tensor in (makers[name]() | changed).items() if tensor is not None}
    torch.save(weights, tmp_path / "x.pt")
    base = bert if name == "imagereward" else clip
    with pytest.raises(ConfigError, match=message):
        import_judge(name, str(tmp_path / "x.pt"), tmp_path / "b", base=str(base))
    assert not (tmp_path / "b").exists()


def test_the_tokenizer_of_another_judge_is_refused(
    reward: Path, hps: Path, clip: Path, bert: Path, tmp_path: Path
):
    with pytest.raises(ConfigError, match=r"has no <\|endoftext\|>; take that of a CLIP"):
        import_judge("hpsv2.1", str(hps), tmp_path / "b", base=str(bert))
    with pytest.raises(ConfigError, match="the tokenizer has 515 tokens, and the text encoder 59"):
        import_judge("imagereward", str(reward), tmp_path / "b", base=str(clip))


@pytest.mark.parametrize(("eos_token_id", "fits"), [(2, True), (5, False), (None, False)])
def test_a_clip_reads_a_text_at_its_end_or_is_refused(
    eos_token_id: int | None, fits: bool, clip: Path, imported, tmp_path: Path
):
    other = shutil.copytree(clip, tmp_path / "clip")
    config = json.loads((clip / "config.json").read_text())
    config["text_config"]["eos_token_id"] = eos_token_id
    (other / "config.json").write_text(json.dumps(config))
    if fits:
        # The end has the greatest id.
        judge = imported("clipscore", other)
        assert not torch.equal(utilities(judge, "a red cube"), utilities(judge, "a blue table"))
    else:
        with pytest.raises(ConfigError, match="the tokenizer ends a text with 514"):
            imported("clipscore", other)


def test_a_dual_encoder_is_float32_on_every_device_by_default(clip: Path, tmp_path: Path):
    import_judge("clipscore", str(clip), tmp_path / "b")
    assert load_dual_bundle(tmp_path / "b", "meta").judge.dtype == torch.float32


@pytest.mark.parametrize(("dtype", "nats"), [(torch.float16, 0.1), (torch.bfloat16, 1.0)])
def test_weights_of_half_precision_stay_so_and_the_scale_is_exact(
    dtype: torch.dtype, nats: float, hps: Path, clip: Path, tmp_path: Path
):
    """As HPSv2's compressed files; a rounded logit_scale would change every probability. Here it is 100."""
    stored = {name: w.to(dtype) for name, w in checkpoints.openclip_weights().items()}
    torch.save(stored | {"logit_scale": torch.tensor(4.6052)}, tmp_path / "x.pt")
    import_judge("hpsv2", str(tmp_path / "x.pt"), tmp_path / "b", base=str(clip))
    whole = load_dual_bundle(tmp_path / "b", "cpu").judge
    half = load_dual_bundle(tmp_path / "b", "cpu", dtype).judge
    assert (whole.dtype, half.dtype) == (torch.float32, dtype)
    found = utilities(half, PROMPT)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, utilities(whole, PROMPT), atol=nats, rtol=0.0)
    assert whole._scale == half._scale == pytest.approx(math.exp(4.6052), rel=1e-6)
