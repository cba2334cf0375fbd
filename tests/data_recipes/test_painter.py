"""The shipped painter, and the script that made it."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_recipes.shapes.painter import CHECKPOINT
from data_recipes.shapes.painter import train as painter
from data_recipes.shapes.painter.model import paint
from data_recipes.shapes.prompts import all_prompts, parse_prompt, split_prompts
from data_recipes.shapes.scene import Scene


@pytest.fixture(scope="module")
def shipped():
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT), AutoTokenizer.from_pretrained(CHECKPOINT)


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_checkpoint_holds_no_weights_but_safetensors():
    assert {path.suffix for path in CHECKPOINT.iterdir()} == {".json", ".safetensors"}


def test_weights_load_in_single_precision(shipped):
    model, _ = shipped
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_tokenizer_knows_every_prompt_and_program_and_pads_on_the_left(shipped):
    _, tokenizer = shipped
    texts = [prompt.text for prompt in all_prompts()] + ["red circle 0 3 ; black star 1 2"]
    assert all(tokenizer.unk_token_id not in ids for ids in tokenizer(texts)["input_ids"])
    assert tokenizer.decode(tokenizer(texts[-1])["input_ids"], skip_special_tokens=True) == texts[-1]
    pads, _ = tokenizer([texts[0], texts[-1]], padding=True)["input_ids"]
    assert pads[0] == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_painter_starts_imperfect_and_within_reach_of_better(shipped):
    report = painter.evaluate(*shipped, per_skill=40)
    assert 0.45 < report.mean < 0.7
    assert report.unparsable < 0.05
    assert all(0.3 < mean < 0.85 for mean in report.by_skill.values())


def test_samples_for_one_prompt_differ_in_score(shipped):
    torch.manual_seed(0)
    model, tokenizer = shipped
    prompts = [prompt for prompt in split_prompts("test") if prompt.skill == "color_attribution"][:20]
    spread = 0
    for prompt in prompts:
        programs = paint(model, tokenizer, [prompt.text] * 8)
        spread += len({painter.score(prompt, program) for program in programs}) > 1
    assert spread >= 18


def test_score_is_the_oracles_and_none_for_no_program():
    prompt = parse_prompt("a red circle and a blue square")
    assert painter.score(prompt, "red circle 0 0 ; blue square 2 2") == 1.0
    # Of five claims one fails: there is no blue square, though there is a square.
    assert painter.score(prompt, "red circle 0 0 ; red square 2 2") == pytest.approx(0.8)
    assert painter.score(prompt, "red circle 0 0 ; blue square") is None


def test_programs_to_learn_from_parse_and_are_often_wrong():
    examples = list(painter.Programs(examples=300, seed=0))
    scores = [painter.score(parse_prompt(text), program) for text, program in examples]
    assert all(Scene.parse(program) for _, program in examples)
    assert 0.5 < sum(scores) / len(scores) < 0.75
    assert {text for text, _ in examples} <= {prompt.text for prompt in split_prompts("train")}
    assert examples == list(painter.Programs(examples=300, seed=0))
    assert examples != list(painter.Programs(examples=300, seed=1))


def test_only_the_program_and_its_end_are_learnt(shipped):
    _, tokenizer = shipped
    batch = painter.Collator(tokenizer)(
        [("a circle", "red circle 0 0"), ("a circle and a star", "red star 1 1")]
    )
    learnt = [[token for token in row if token != painter.IGNORED] for row in batch["labels"].tolist()]
    assert tokenizer.batch_decode(learnt) == ["red circle 0 0 <eos>", "red star 1 1 <eos>"]
    assert ((batch["labels"] == batch["input_ids"]) | (batch["labels"] == painter.IGNORED)).all()


def test_the_shipped_files_are_those_that_the_script_writes(tmp_path):
    painter.train(tmp_path, seed=0, steps=1, batch_size=2)
    assert {path.name for path in CHECKPOINT.iterdir()} <= {path.name for path in tmp_path.iterdir()}
    for path in CHECKPOINT.iterdir():
        if path.suffix != ".safetensors":
            assert path.read_text() == (tmp_path / path.name).read_text(), path.name


def test_script_is_deterministic_in_its_seed(tmp_path):
    tiny = {"steps": 3, "batch_size": 4, "width": 32, "layers": 1}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        painter.train(tmp_path / name, seed=seed, **tiny)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b") != weights_of(tmp_path / "c")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a").config.hidden_size == 32
