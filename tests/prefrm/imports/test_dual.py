"""Dual encoders against references written from the published descriptions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prefrm.bundle import load_dual_bundle
from prefrm.imports.importing import import_judge
from prefrm.judge.dual.pictures import prepare_image
from tests.prefrm.imports.checkpoints import save_clip

PROMPT = "A red CUBE  on a blue table"


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURES = [picture(0, 60, 31), picture(1, 28, 28), picture(2, 33, 97), picture(3, 1, 1)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def utilities(bundle: Path, prompt: str) -> torch.Tensor:
    judge = load_dual_bundle(bundle, "cpu").judge
    pixels = torch.stack([prepare_image(image, judge.spec.image) for image in PICTURES])
    with torch.inference_mode():
        return judge.utilities(judge.encode_images(pixels), judge.encode_text(prompt))


@pytest.mark.parametrize("prompt", [PROMPT, "red " * 60])
def test_pickscore_is_the_logit_of_transformers(clip: Path, tmp_path: Path, prompt: str):
    import_judge("pickscore", str(clip), tmp_path / "b")
    model = CLIPModel.from_pretrained(clip).eval()
    texts = CLIPTokenizer.from_pretrained(clip)(
        [prompt], padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    images = CLIPImageProcessorPil.from_pretrained(clip)(PICTURES, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**texts, **images).logits_per_text[0]
    found = utilities(tmp_path / "b", prompt)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
    assert float(expected.std()) > 0.1
