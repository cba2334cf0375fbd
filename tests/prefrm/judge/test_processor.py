"""Images and pairs to tensors."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge import Judge, JudgeProcessor, JudgeSpec
from prefrm.media import decode


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


def test_a_comparison_longer_than_the_model_reads_is_refused(judge: Judge, png):
    image = prepare(judge, png, 0)
    with pytest.raises(RecordError, match=r"the model reads 512: the prompt has 1000 characters"):
        judge.processor.prepare_pair("x" * 1000, image, image)


def test_a_prompt_far_too_long_is_refused_before_it_is_tokenized(judge: Judge, monkeypatch):
    monkeypatch.setattr(type(judge.processor.layout), "prompt", lambda *_: pytest.fail("it was tokenized"))
    with pytest.raises(RecordError, match="2000000 characters and the model reads 512 tokens"):
        judge.processor.frame("x " * 1_000_000)


def test_a_prompt_that_is_stated_twice_takes_its_tokens_twice(tiny_checkpoint: Path, png):
    lengths = {}
    for template in ("match-v1", "match-twice-v1"):
        judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), template=template), "cpu")
        image = prepare(judge, png, 0)
        short, long = (judge.processor.prepare_pair("x" * n, image, image) for n in (5, 9))
        assert short.positions_AL.shape[1] == len(short.ids_L)
        lengths[template] = len(long.ids_L) - len(short.ids_L)
    assert lengths == {"match-v1": 4, "match-twice-v1": 8}


@pytest.mark.parametrize("more", [0, 5])
def test_collation_pads_on_the_right_and_keeps_the_order_shown(judge: Judge, png, more: int):
    wide, tall = prepare(judge, png, 0), prepare(judge, png, 1, width=16, height=64)
    pairs = [judge.processor.prepare_pair(text, wide, tall) for text in ("short", "a longer prompt")]
    longest = max(map(len, pairs))
    batch = judge.processor.collate(pairs, longest + more if more else 0)
    assert len(batch) == 2 and batch.ids_BL.shape[1] == batch.mask.shape[1] == longest + more
    assert batch.images == ((wide, tall), (wide, tall))
    assert batch.distinct_images == [wide, tall]
    lengths = [len(pair.ids_L) for pair in pairs]
    assert batch.mask.sum(dim=1).tolist() == lengths
    for row, pair in enumerate(pairs):
        n = lengths[row]
        assert torch.equal(batch.ids_BL[row, :n], pair.ids_L)
        assert torch.equal(batch.positions_ABL[:, row, :n], pair.positions_AL)
        assert batch.mask[row, :n].all() and not batch.mask[row, n:].any()
    assert not (batch.ids_BL[0, lengths[0] :] == judge.processor.layout.image_token_id).any()


def test_saved_files_prepare_the_same_tensors(tiny_checkpoint: Path, tmp_path: Path, png):
    spec = JudgeSpec(base_model=str(tiny_checkpoint), max_pixels=32 * 32)
    judge = Judge.from_base(spec, "cpu")
    judge.processor.save(tmp_path)
    again = type(judge.processor).load(tmp_path, judge.model.config, spec, judge.processor.template)
    image, same = prepare(judge, png, 0), again.prepare_image(decode(png(0)))
    assert torch.equal(image.pixels, same.pixels) and image.grid == same.grid
    assert torch.equal(
        judge.processor.prepare_pair("a", image, image).ids_L, again.prepare_pair("a", same, same).ids_L
    )


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
    opening = judge.processor.tokenizer.decode(judge.processor.layout.instruction)
    assert opening == "<|im_start|>system\n<|im_start|>user\nPrompt:\n"
    judge.processor.save(tmp_path / "saved")
    (folder / "chat_template.json").unlink()
    with pytest.raises(ConfigError, match="cannot render"):
        Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")
    spec = JudgeSpec(base_model="saved", max_pixels=32 * 32)
    saved = JudgeProcessor.load(tmp_path / "saved", judge.model.config, spec, judge.processor.template)
    assert saved.layout.instruction == judge.processor.layout.instruction
    assert saved.prepare_image(decode(png(0, width=160, height=160))).tokens == 4
