"""The shipped captioner, its lessons, and the script that made it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_recipes.shapes import captioner, painter
from data_recipes.shapes.candidates import with_fault
from data_recipes.shapes.captioner import lessons
from data_recipes.shapes.captioner import train as script
from data_recipes.shapes.captioner.dialogue import IGNORED, Collator, Turn
from data_recipes.shapes.captioner.model import Architecture
from data_recipes.shapes.claims import Before, Count, Exists, Noun, Only, Within
from data_recipes.shapes.prompts import all_prompts, solve, split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import Scene

CHECKPOINT = captioner.CHECKPOINT
QUESTION = "\nWhich image matches better, 1 or 2?"


@pytest.fixture(scope="module")
def shipped():
    return (
        AutoModelForImageTextToText.from_pretrained(CHECKPOINT),
        AutoTokenizer.from_pretrained(CHECKPOINT),
        AutoImageProcessor.from_pretrained(CHECKPOINT),
    )


@pytest.fixture(scope="module")
def collate(shipped):
    return Collator(*shipped[1:])


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_both_checkpoints_are_small_and_hold_no_weights_but_safetensors():
    files = [file for folder in (CHECKPOINT, painter.CHECKPOINT) for file in folder.iterdir()]
    assert {file.suffix for file in files} == {".json", ".jinja", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 4 * 2**20


def test_it_is_an_ordinary_qwen_of_about_a_million_parameters(shipped):
    model, _, processor = shipped
    assert model.config.model_type == "qwen2_5_vl"
    assert 0.8e6 < model.num_parameters() < 1.3e6
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # One language token for each cell of the world's grid.
    grid = processor(images=[Image.new("RGB", (64, 64))])["image_grid_thw"]
    assert int(np.prod(grid)) // processor.merge_size**2 == 16


def test_tokenizer_encodes_any_text_and_each_digit_as_one_token(shipped):
    _, tokenizer, _ = shipped
    assert [len(tokenizer(digit)["input_ids"]) for digit in ("1", "2", "12")] == [1, 1, 2]
    text = "Ein Bär 🐻 & \t<tag> naïve 漢字 99"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    words = {word for prompt in all_prompts() for word in prompt.text.split()}
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in words)


def test_captions_of_held_out_pictures_are_mostly_exact(shipped):
    assert script.exact_captions(*shipped, pictures=40) >= 0.85


def test_it_describes_an_imperfect_scene(shipped):
    scene = Scene.parse("purple star 3 0 ; yellow square 0 2 ; green circle 2 3")
    caption = "purple star top right ; yellow square bottom left ; green circle bottom right"
    assert script.describe(*shipped, render(scene)) == caption


def test_it_has_learnt_no_preference(shipped, collate):
    """Asked which picture is better it throws a coin: whatever it answers is as often wrong as right."""
    model, tokenizer, _ = shipped
    one, two = (tokenizer(answer)["input_ids"][0] for answer in "12")
    rng = np.random.default_rng(0)
    right = []
    for prompt in rng.permutation(np.array(split_prompts("test"), dtype=object))[:60]:
        good, bad = solve(prompt, rng), with_fault(with_fault(solve(prompt, rng), rng), rng)
        better = 0.0
        for first, second, sign in ((good, bad, 1), (bad, good, -1)):
            batch = collate([[Turn(question=judged(prompt.text, first, second), answer="")]])
            del batch["labels"]
            with torch.inference_mode():
                # The last token ends the empty answer; the one before it has the verdict.
                logits = model(**batch).logits[0, -2]
            assert logits.softmax(-1)[[one, two]].sum() > 0.9
            better += sign * float(logits[one] - logits[two])
        right.append(better > 0)
    assert 0.3 < np.mean(right) < 0.7


def judged(prompt: str, first: Scene, second: Scene) -> tuple[str | Image.Image, ...]:
    again = f"\nPrompt:\n{prompt}{QUESTION}"
    return (f"Prompt:\n{prompt}\nImage 1:", render(first), "\nImage 2:", render(second), again)


def test_collator_lets_only_answers_be_learnt(shipped, collate):
    _, tokenizer, processor = shipped
    picture = render(Scene.parse("red circle 0 0"))
    dialogue = [
        Turn(question=("a", picture, "b", picture, "c"), answer="red circle"),
        Turn(question=("d",), answer="yes"),
    ]
    batch = collate([dialogue, [Turn(question=(picture,), answer="no")]])
    learnt = [[token for token in row if token != IGNORED] for row in batch["labels"].tolist()]
    assert [tokenizer.decode(row) for row in learnt] == ["red circle<|im_end|>yes<|im_end|>", "no<|im_end|>"]
    text = tokenizer.decode(batch["input_ids"][0])
    image = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
    assert text == (
        f"<|im_start|>user\na{image}b{image}c<|im_end|>\n<|im_start|>assistant\nred circle<|im_end|>\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    )
    assert batch["mm_token_type_ids"].sum() == 3 * 16
    assert batch["pixel_values"].shape[0] == 3 * 16 * processor.merge_size**2
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]] * 3


def dialogue_about(pictures: int, rng: np.random.Generator) -> list[Turn]:
    return lessons.about_prompt(pictures, rng, by_skill=True, details=4)


def test_a_coin_gives_either_verdict():
    rng = np.random.default_rng(3)
    answers = [lessons.coin(rng)[0].answer for _ in range(200)]
    assert 0.4 < answers.count("1") / len(answers) < 0.6
    assert set(answers) == {"1", "2"}


def test_no_other_lesson_compares_or_is_answered_by_a_verdict():
    rng = np.random.default_rng(0)
    turns = [turn for _ in range(50) for pictures in (1, 2) for turn in dialogue_about(pictures, rng)]
    turns += [turn for _ in range(50) for turn in lessons.about_picture(rng)]
    assert not any("1" in turn.answer or "2" in turn.answer for turn in turns)
    assert not any("better" in part for turn in turns for part in turn.question if isinstance(part, str))
    assert (len(dialogue_about(1, rng)), len(dialogue_about(2, rng))) == (3, 5)


def test_a_check_agrees_with_the_number_of_claims_missed():
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, *details = dialogue_about(2, rng)
        checks = {turn.question[0]: turn.answer for turn in details}
        for number, missed in enumerate(first.answer.split(), 1):
            verdicts = [line.split()[-1] for line in checks[f"Check image {number}."].split(" ; ")]
            assert lessons.NUMBERS[verdicts.count("no")] == missed


def test_only_prompts_of_the_train_split_are_taught():
    rng = np.random.default_rng(2)
    held_out = {prompt.text for prompt in (*split_prompts("validation"), *split_prompts("test"))}
    taught = {str(dialogue_about(1, rng)[0].question[0]).removeprefix("Prompt:\n") for _ in range(200)}
    assert len(taught) > 50
    assert not taught & held_out


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (Exists(noun=Noun(kind="star", color="red")), "a red star"),
        (Count(noun=Noun(kind="star"), n=3), "exactly three stars"),
        (Only(n=2), "two in all"),
        (Before(first=Noun(kind="star"), second=Noun(kind="circle"), axis="x"), "a star left of a circle"),
        (Before(first=Noun(kind="star"), second=Noun(kind="circle"), axis="y"), "a star above a circle"),
        (Within(noun=Noun(kind="star"), axis="y", low=False), "a star at the bottom"),
    ],
)
def test_claims_in_english(claim, text):
    assert lessons.claim_text(claim) == text


def test_script_is_deterministic_in_its_seed(tmp_path):
    tiny = Architecture(
        text_width=128, text_layers=1, text_mlp=32, vision_width=32, vision_layers=1, vision_mlp=32
    )
    short = [replace(course, steps=3) for course in script.COURSES]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        script.train(tmp_path / name, seed=seed, batch_size=2, courses=short, architecture=tiny)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b") != weights_of(tmp_path / "c")
    assert (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "a").config.text_config.num_hidden_layers == 1
    )
