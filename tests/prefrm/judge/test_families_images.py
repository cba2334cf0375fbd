"""How each family takes images: budgets of pixels, tiles and the tags around them."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from prefrm.errors import ConfigError
from prefrm.judge import FAMILIES, Judge, JudgeSpec
from prefrm.media import decode
from tests.prefrm.judge.comparing import compared
from tests.prefrm.judge.families import IDEFICS_SPECIALS, TINY, build_tokenizer, save_checkpoint
from tests.prefrm.judge.references import own_processor, own_reading


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_checkpoint(tmp_path_factory.mktemp(name), name) for name in TINY}


@pytest.mark.parametrize(
    ("model_type", "fields", "size", "tokens"),
    [
        # A token of these is 16 x 16 pixels.
        ("qwen2_vl", {"max_pixels": 32 * 32}, (160, 160), 4),
        ("qwen3_vl", {"min_pixels": 32 * 32}, (16, 16), 4),
        # The whole has 4 x 4 tokens; the tiles have as many each, and one at the end of each row.
        ("llava_onevision", {"max_pixels": 16 * 32}, (160, 160), 16 + 4 * 5),
        ("llava_onevision", {"max_pixels": 16 * 32}, (160, 80), 16 + 4 * 9),
        # 12 x 12 are more than 3 tiles' worth, and are shrunk to half as many each way.
        ("llava_onevision", {"min_pixels": 48 * 48}, (16, 16), 16 + 6 * 7),
        # A tile has a border, a tag and 2 x 2 tokens; a row a line's end; the whole one more and a border.
        ("idefics3", {"max_pixels": 32 * 32 - 1}, (160, 160), 7),
        ("idefics3", {"max_pixels": 32 * 32}, (160, 80), 2 * 6 + 1 + 8),
        ("smolvlm", {"max_pixels": 48 * 48 - 1}, (10, 10), 4 * 6 + 2 + 8),
        ("smolvlm", {"max_pixels": 10**9}, (10, 10), 9 * 6 + 3 + 8),
    ],
)
def test_the_pixel_budget_of_the_spec_is_kept(
    checkpoints, model_type: str, fields: dict, size: tuple[int, int], tokens: int
):
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoints[model_type]), **fields), "cpu")
    image = judge.processor.prepare_image(Image.new("RGB", size, "red"))
    assert image.tokens == tokens
    (features_VTD,) = judge.family.encode(judge.model, [image])
    assert features_VTD.shape[1] == image.ids.count(judge.processor.layout.image_token_id)


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("qwen2_vl", {"min_pixels": 65 * 65}, r"min_pixels \(4225\) is larger than max_pixels \(4096\)"),
        (
            "llava_onevision",
            {"max_pixels": 255},
            "of 256 to 2304 pixels, and none .* max_pixels=255; set bounds",
        ),
        ("llava_onevision", {"min_pixels": 2305}, "none is within min_pixels=2305 and max_pixels=None"),
        ("idefics3", {"min_pixels": 99}, r"min_pixels \(99\) cannot be kept: .*leave min_pixels out"),
        (
            "smolvlm",
            {"max_pixels": 255},
            r"max_pixels \(255\) is less than one tile.*at least 256 \(16 x 16\)",
        ),
    ],
)
def test_a_budget_that_a_family_cannot_keep_is_refused(
    checkpoints, model_type: str, fields: dict, message: str
):
    with pytest.raises(ConfigError, match=message):
        Judge.from_base(JudgeSpec(base_model=str(checkpoints[model_type]), **fields), "cpu")


def test_odd_tiles_keep_the_budget_of_idefics3():
    processor = Idefics3ImageProcessorPil(size={"longest_edge": 100}, max_image_size={"longest_edge": 15})
    FAMILIES["idefics3"].pixel_budget(processor, None, 45 * 45)
    _, grid = FAMILIES["idefics3"].prepare(processor, Image.new("RGB", (200, 200), "red"))
    assert grid == (3, 3)


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm"])
@torch.inference_mode()
def test_an_image_that_is_not_split_is_shown_whole_alone(checkpoints, png, model_type: str):
    spec = JudgeSpec(base_model=str(checkpoints[model_type]), attention="joint")
    judge = Judge.from_base(spec, "cpu")
    judge.processor.image_processor.do_image_splitting = False
    pictures = [decode(png(0)), decode(png(1, top=60))]
    images = [judge.processor.prepare_image(picture) for picture in pictures]
    assert [image.grid for image in images] == [(0, 0), (0, 0)]
    _, logits_V = own_reading(judge, "a cat", pictures)
    first, second = judge.processor.layout.answers
    log_odds = logits_V[first] - logits_V[second]
    found = compared(judge, "a cat", images, [(0, 1)])
    torch.testing.assert_close(found[0], log_odds, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(0, 0), (1, 2), (3, 2)])
def test_tags_may_be_ordinary_text_to_a_tokenizer(grid: tuple[int, int]):
    """Not all that know the border and the image know the tags."""
    tokenizer = build_tokenizer(None, IDEFICS_SPECIALS[:5])
    image_processor = TINY["idefics3"].image_processor()
    config = TINY["idefics3"].config(tokenizer, 32)
    ids = partial(FAMILIES["idefics3"].spell, tokenizer, config)
    processor = own_processor("idefics3", tokenizer, image_processor)
    text = processor.replace_image_token({"rows": [[grid[0]]], "cols": [[grid[1]]]}, 0)
    assert ids(grid) == tokenizer(text)["input_ids"]
