"""Images to tensors, and the files of a processor."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge import Judge, JudgeProcessor, JudgeSpec
from prefrm.media import decode
from prefrm.prompts import get_template
from tests.prefrm.judge.families import build_processor


def prepare(judge: Judge, png, seed: int, **size: int):
    return judge.processor.prepare_image(decode(png(seed, **size)))


def test_an_image_becomes_one_token_for_each_16_by_16_pixels(judge: Judge, png):
    image = prepare(judge, png, 0, width=48, height=32)
    assert image.grid == (1, 4, 6)
    assert image.tokens == 3 * 2
    assert image.pixels.shape == (24, 3 * 2 * 8 * 8)


def test_the_pixel_budget_of_the_spec_is_kept(tiny_checkpoint: Path, png):
    spec = JudgeSpec(base_model=str(tiny_checkpoint), min_pixels=32 * 32, max_pixels=48 * 48)
    judge = Judge.from_base(spec, "cpu")
    assert prepare(judge, png, 0, width=16, height=16).tokens == 4
    assert prepare(judge, png, 0, width=160, height=160).tokens == 9


def test_a_budget_that_contradicts_the_base_model_is_refused(tiny_checkpoint: Path):
    spec = JudgeSpec(base_model=str(tiny_checkpoint), min_pixels=65 * 65)
    with pytest.raises(ConfigError, match=r"min_pixels \(4225\) is larger than max_pixels \(4096\)"):
        Judge.from_base(spec, "cpu")


def test_an_impossible_aspect_ratio_is_refused(judge: Judge):
    with pytest.raises(MediaError, match="cannot be prepared"):
        judge.processor.prepare_image(Image.new("RGB", (401, 1)))


def test_a_text_far_too_long_is_refused_before_it_is_tokenized(monkeypatch):
    processor = build_processor(get_template("fit-late-v1"))
    processor.prepare_text("a")
    monkeypatch.setattr(processor.tokenizer, "encode", lambda *_, **__: pytest.fail("it was tokenized"))
    text = "x " * 1_000_000
    for name, prepare in {
        "prompt": lambda: processor.tree(text, {}),
        "criterion": lambda: processor.tree("a cat", {}, criterion=text),
        "text": lambda: processor.prepare_text(text),
    }.items():
        with pytest.raises(RecordError, match=f"the {name} has 2000000 characters and the model reads 512"):
            prepare()


@pytest.mark.parametrize("text", ["", "a \ud800 surrogate"])
def test_a_text_that_cannot_be_read_is_refused(judge: Judge, text: str):
    with pytest.raises(RecordError, match=r"the text is (empty|not valid Unicode)"):
        judge.processor.prepare_text(text)


def test_saved_files_prepare_the_same_tensors(tiny_checkpoint: Path, tmp_path: Path, png):
    spec = JudgeSpec(base_model=str(tiny_checkpoint), max_pixels=32 * 32)
    judge = Judge.from_base(spec, "cpu")
    judge.processor.save(tmp_path)
    again = type(judge.processor).load(tmp_path, judge.model.config, spec, judge.processor.template)
    image, same = prepare(judge, png, 0), again.prepare_image(decode(png(0)))
    assert torch.equal(image.pixels, same.pixels) and image.grid == same.grid
    one, other = (
        processor.collate([(processor.tree("a", {0: image, 1: image}), [(0, 1)])]).ids_T
        for processor in (judge.processor, again)
    )
    assert torch.equal(one, other)


def test_the_files_of_an_older_checkpoint_are_understood(tiny_checkpoint: Path, tmp_path: Path, png):
    """As hubs hold Qwen2.5-VL: old names of the pixel bounds, and a chat template in a file of its own."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "older")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    del config["size"]
    config |= {
        "min_pixels": 32 * 32,
        "max_pixels": 48 * 48,
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with_images = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": "<|im_start|>system\n" + with_images})
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] + 'text only' }}")
    judge = Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")
    assert prepare(judge, png, 0, width=160, height=160).tokens == 9
    assert prepare(judge, png, 0, width=16, height=16).tokens == 4
    opening = judge.processor.layout.fill("a cat").opening
    start = "<|im_start|>system\n<|im_start|>user\nPrompt:\na cat"
    assert judge.processor.tokenizer.decode(opening[0]).startswith(start)
    judge.processor.save(tmp_path / "saved")
    (folder / "chat_template.json").unlink()
    with pytest.raises(ConfigError, match="cannot render"):
        Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")
    spec = JudgeSpec(base_model="saved", max_pixels=32 * 32)
    saved = JudgeProcessor.load(tmp_path / "saved", judge.model.config, spec, judge.processor.template)
    assert saved.layout.fill("a cat").opening == opening
    assert saved.prepare_image(decode(png(0, width=160, height=160))).tokens == 4
