"""The shipped captioner, its lessons, and the script that made it; and what the viewer has of it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_recipes.shapes import captioner, painter, viewer
from data_recipes.shapes.candidates import with_fault
from data_recipes.shapes.captioner import lessons
from data_recipes.shapes.captioner import train as script
from data_recipes.shapes.captioner.courses import first_tokens, weighted_loss
from data_recipes.shapes.captioner.dialogue import IGNORED, Collator, Turn
from data_recipes.shapes.captioner.model import Architecture
from data_recipes.shapes.oracle import assess, read
from data_recipes.shapes.prompts import Prompt, all_prompts, named, parse_prompt, solve, split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import GRID, Scene
from data_recipes.shapes.viewer import train as viewer_script
from prefrm.prompts import get_template

CHECKPOINT = captioner.CHECKPOINT


@pytest.fixture(scope="module")
def shipped(request):
    """The captioner's model, tokenizer and image processor, or those of the folder that a test names."""
    folder = getattr(request, "param", CHECKPOINT)
    return (
        AutoModelForImageTextToText.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder),
    )


@pytest.fixture(scope="module")
def collate(shipped):
    return Collator(*shipped[1:])


both = pytest.mark.parametrize(
    "shipped", [CHECKPOINT, viewer.CHECKPOINT], ids=["captioner", "viewer"], indirect=True
)


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_checkpoints_are_small_and_hold_no_weights_but_safetensors():
    for folders in ((CHECKPOINT, painter.CHECKPOINT), (viewer.CHECKPOINT,)):
        files = [file for folder in folders for file in folder.iterdir()]
        assert {file.suffix for file in files} == {".json", ".jinja", ".safetensors"}
        assert sum(file.stat().st_size for file in files) < 4 * 2**20


@pytest.mark.parametrize(
    ("shipped", "least", "most"),
    [(CHECKPOINT, 0.8e6, 1.3e6), (viewer.CHECKPOINT, 1.6e6, 1.9e6)],
    ids=["captioner", "viewer"],
    indirect=["shipped"],
)
def test_it_is_an_ordinary_qwen_of_one_or_two_million_parameters(shipped, least, most):
    model, _, processor = shipped
    assert model.config.model_type == "qwen2_5_vl"
    assert least < model.num_parameters() < most
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # One language token for each cell of the world's grid.
    grid = processor(images=[Image.new("RGB", (64, 64))])["image_grid_thw"]
    assert int(np.prod(grid)) // processor.merge_size**2 == 16


@both
def test_tokenizer_encodes_any_text_and_each_digit_as_one_token(shipped):
    _, tokenizer, _ = shipped
    assert [len(tokenizer(digit)["input_ids"]) for digit in ("1", "2", "12")] == [1, 1, 2]
    text = "Ein Bär 🐻 & \t<tag> naïve 漢字 99"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    words = {word for prompt in all_prompts() for word in prompt.text.split()}
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in words)


@both
def test_captions_of_held_out_pictures_are_mostly_exact(shipped):
    assert script.exact_captions(*shipped, pictures=40) >= 0.95


@pytest.mark.parametrize(
    ("lesson", "least"),
    [("locate", 0.97), ("count", 0.93), ("count nearly", 0.95), ("count tallied", 0.85), ("tally", 0.8)],
)
def test_it_answers_what_it_was_taught(lesson, least, shipped, collate):
    model, tokenizer, _ = shipped
    rng = np.random.default_rng(7)
    batch = collate([LESSONS[lesson](rng) for _ in range(64)])
    with torch.inference_mode():
        _, right = weighted_loss(model, batch, first_tokens(tokenizer, lessons.KEYWORDS))
    assert right > least


def test_it_describes_an_imperfect_scene(shipped):
    scene = Scene.parse("purple star 3 0 ; yellow square 0 2 ; green circle 2 3")
    caption = "purple star top right ; yellow square bottom left ; green circle bottom right"
    assert script.describe(*shipped, render(scene)) == caption


@pytest.mark.parametrize(
    ("shipped", "most"),
    [(CHECKPOINT, 0.1), (viewer.CHECKPOINT, 0.5)],
    ids=["captioner", "viewer"],
    indirect=["shipped"],
)
def test_it_has_learnt_no_preference(shipped, most, collate):
    """Asked which picture is better it says about 50 to 50, even of a right one and one with two faults."""
    model, tokenizer, _ = shipped
    one, two = (tokenizer(answer)["input_ids"][0] for answer in "12")
    rng = np.random.default_rng(0)
    found = []
    for prompt in rng.choice(np.array(split_prompts("test"), dtype=object), size=100):
        good, bad = solve(prompt, rng), with_fault(with_fault(solve(prompt, rng), rng), rng)
        better = 0.0
        for first, second, sign in ((good, bad, 1), (bad, good, -1)):
            batch = collate([Turn(question=judged(prompt.text, first, second), answer="")])
            del batch["labels"]
            with torch.inference_mode():
                # The last token ends the empty answer; the one before it has the verdict.
                logits = model(**batch).logits[0, -2]
            assert logits.softmax(-1)[[one, two]].sum() > 0.9
            better += sign * float(logits[one] - logits[two]) / 2
        # In log-odds; a judge that was trained on preferences says 2 and more. What the viewer counts in each
        # candidate leaves a trace in single pairs.
        assert abs(better) < most
        found.append(better)
    assert abs(np.mean(found)) < 0.1
    assert 0.3 < np.mean(np.array(found) > 0) < 0.7


def judged(prompt: str, first: Scene, second: Scene) -> tuple[str | Image.Image, ...]:
    pictures = iter([render(first), render(second)])
    (message,) = get_template("match-twice-v1").messages(prompt)
    return tuple(item.get("text") or next(pictures) for item in message["content"])


def test_collator_lets_only_answers_be_learnt(shipped, collate):
    _, tokenizer, processor = shipped
    picture = render(Scene.parse("red circle 0 0"))
    batch = collate(
        [
            Turn(question=("a", picture, "b", picture, "c"), answer="red circle"),
            Turn(question=(picture,), answer="no"),
        ]
    )
    learnt = [[token for token in row if token != IGNORED] for row in batch["labels"].tolist()]
    assert [tokenizer.decode(row) for row in learnt] == ["red circle<|im_end|>", "no<|im_end|>"]
    image = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
    assert tokenizer.decode(batch["input_ids"][0]) == (
        f"<|im_start|>user\na{image}b{image}c<|im_end|>\n<|im_start|>assistant\nred circle<|im_end|>"
    )
    assert batch["mm_token_type_ids"].sum() == 3 * 16
    assert batch["pixel_values"].shape[0] == 3 * 16 * processor.merge_size**2
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]] * 3


LESSONS = {
    "describe": lessons.describe_any,
    "locate": lambda rng: lessons.locate(2, rng),
    "count": lessons.count_missed,
    "count nearly": lessons.count_nearly,
    "count tallied": lessons.count_tallied,
    "tally": lessons.tally,
}


def test_a_coin_is_tossed_over_the_very_question_of_a_judge():
    rng = np.random.default_rng(6)
    turn = lessons.coin(rng)
    prompt, pictures, _ = asked(turn)
    (message,) = get_template("match-twice-v1").messages(prompt.text)
    items = ["<image>" if item["type"] == "image" else item["text"] for item in message["content"]]
    assert "".join(part if isinstance(part, str) else "<image>" for part in turn.question) == "".join(items)
    assert len(pictures) == 2


def test_a_coin_gives_either_verdict():
    rng = np.random.default_rng(3)
    answers = [lessons.coin(rng).answer for _ in range(200)]
    assert 0.4 < answers.count("1") / len(answers) < 0.6
    assert set(answers) == {"1", "2"}


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_no_other_lesson_compares_or_is_answered_by_a_verdict(lesson):
    rng = np.random.default_rng(0)
    for turn in (lesson(rng) for _ in range(100)):
        assert not {"1", "2"} & set(turn.answer)
        assert not any("better" in part for part in turn.question if isinstance(part, str))


@pytest.mark.parametrize("lesson", ["count", "count nearly", "count tallied"])
def test_a_count_is_of_the_claims_that_the_oracle_finds_missed(lesson):
    rng = np.random.default_rng(1)
    for _ in range(50):
        prompt, pictures, answer = asked(LESSONS[lesson](rng))
        held = [assess(prompt, picture) for picture in pictures]
        assert answer.split() == [lessons.NUMBERS[a.total - a.held] for a in held]


def test_half_of_the_near_misses_miss_nothing_and_most_others_one_claim():
    rng = np.random.default_rng(2)
    answers = [word for _ in range(300) for word in lessons.count_nearly(rng).answer.split()]
    assert 0.42 < answers.count("none") / len(answers) < 0.6
    assert answers.count("one") / len(answers) > 0.38


def test_what_is_to_be_found_is_where_the_answer_says_and_nowhere_else():
    rng = np.random.default_rng(3)
    absent = 0
    for _ in range(100):
        prompt, pictures, answer = asked(lessons.locate(2, rng))
        for picture, places in zip(pictures, answer.split(" ; "), strict=True):
            for noun, place in zip(named(prompt), places.split(" and "), strict=True):
                cells = [
                    f"{lessons.CELLS[int(thing.x * GRID)]} {lessons.CELLS[int(thing.y * GRID)]}"
                    for thing in noun.among(read(picture))
                ]
                assert cells == ([] if place == "none" else [place])
                absent += not cells
    assert absent > 20


def test_a_tally_is_of_what_the_oracle_sees():
    rng = np.random.default_rng(8)
    for _ in range(50):
        prompt, pictures, answer = asked(lessons.tally(rng))
        assert prompt.skill == "counting"
        for picture, numbers in zip(pictures, answer.split(" ; "), strict=True):
            seen = read(picture)
            counts = [len(noun.among(seen)) for noun in dict.fromkeys(named(prompt))]
            assert numbers.split(" and ") == [lessons.NUMBERS[n] for n in counts]


def test_only_prompts_of_the_train_split_are_taught():
    rng = np.random.default_rng(4)
    about_prompts = [lesson for name, lesson in LESSONS.items() if name != "describe"]
    taught = {asked(lesson(rng))[0].text for _ in range(50) for lesson in (*about_prompts, lessons.coin)}
    assert len(taught) > 100
    assert taught <= {prompt.text for prompt in split_prompts("train")}


def asked(turn: Turn) -> tuple[Prompt, list[Image.Image], str]:
    """The prompt, the pictures and the answer of a lesson."""
    text = str(turn.question[0]).removeprefix("Prompt:\n")
    return parse_prompt(text), [part for part in turn.question if not isinstance(part, str)], turn.answer


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        pytest.param(script, CHECKPOINT, id="captioner"),
        pytest.param(viewer_script, viewer.CHECKPOINT, id="viewer", marks=pytest.mark.slow),
    ],
)
def test_the_shipped_files_are_those_that_the_script_writes(script, folder, tmp_path):
    short = [replace(course, steps=1) for course in script.COURSES]
    script.train(tmp_path, seed=0, batch_size=1, courses=short)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    for path in tmp_path.iterdir():
        if path.suffix != ".safetensors":
            assert path.read_text() == (folder / path.name).read_text(), path.name


@pytest.mark.slow
def test_script_is_deterministic_in_its_seed(tmp_path):
    tiny = Architecture(
        text_width=128, text_layers=1, text_mlp=32, vision_width=32, vision_layers=1, vision_mlp=32
    )
    short = [replace(course, steps=6) for course in script.COURSES]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        script.train(tmp_path / name, seed=seed, batch_size=2, courses=short, architecture=tiny)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b") != weights_of(tmp_path / "c")
    assert (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "a").config.text_config.num_hidden_layers == 1
    )
