"""The shipped viewer: its lessons, its vocabulary, and the script that made it. `test_captioner` has what it
shares with the captioner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_recipes.shapes import questions
from data_recipes.shapes.captioner.dialogue import IGNORED, Collator, Turn
from data_recipes.shapes.captioner.lessons import CELLS
from data_recipes.shapes.captioner.muon import Muon
from data_recipes.shapes.captioner.tokenizer import IMAGE_PAD, VIDEO_PAD
from data_recipes.shapes.clips import FRAME_RATE
from data_recipes.shapes.definition import World
from data_recipes.shapes.oracle import read
from data_recipes.shapes.scene import GRID
from data_recipes.shapes.viewer import CHECKPOINT, lessons
from prefrm.judge.processor import JudgeProcessor
from prefrm.manifest.spec import JudgeSpec
from prefrm.media import encode_png
from prefrm.prompts import TEMPLATES, get_template
from prefrm.video import Frames

KINDS = {"images": "image", "edits": "image", "clips": "video", "questions": "text", "criteria": "image"}


@pytest.fixture(scope="module")
def viewer():
    return AutoModelForImageTextToText.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def collate():
    return Collator(AutoTokenizer.from_pretrained(CHECKPOINT), AutoImageProcessor.from_pretrained(CHECKPOINT))


@pytest.mark.parametrize("name", KINDS)
def test_questions_are_laid_out_as_a_judge_lays_them_out(name, collate):
    """Token by token and position by position: prefix, candidate, suffix and answer of the late template."""
    turn = lessons.fit(lessons.WORLDS[name], np.random.default_rng(0))
    judge = processor(KINDS[name])
    *_, leaf = next(leaves(turn))
    context = [judge.prepare_image(part) for part in turn.question if isinstance(part, Image.Image)]
    criterion = leaf.question[1] if len(leaf.question) == 3 else ""
    candidates = {n: content(judge, branch.question[0]) for n, branch in enumerate(turn.branches)}
    tree = judge.tree(turn.question[1], candidates, context, criterion)
    read = (tree.prefix, tree.shared[0,], tree.shared[0, "slot", leaf.slot], *tree.answers([(0, 0)]).values())
    batch = collate([turn])
    expected = torch.cat([segment.ids_L for segment in read])
    # A judge's placeholders for videos are those of images; features take the place of both.
    image, video = collate.tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD])
    ids = batch["input_ids"][0, : len(expected)]
    assert torch.equal(ids.where(ids != video, image), expected)
    positions = torch.cat([segment.positions_AL for segment in read], dim=1)
    assert torch.equal(batch["position_ids"][:, 0, : len(expected)], positions)
    # The answer sees the prefix, the suffix and itself, and not the candidate.
    seen = batch["attention_mask"][0, 0, len(expected) - 1, : len(expected)]
    assert not seen[len(tree.prefix) : len(tree.prefix) + len(tree.shared[0,])].any()
    assert seen[: len(tree.prefix) - 1].all() and seen[len(tree.prefix) + len(tree.shared[0,]) :].all()


def processor(kind: str) -> JudgeProcessor:
    spec = JudgeSpec(base_model="shipped:shapes-viewer", kind=kind, template="fit-late-v1")
    config = AutoConfig.from_pretrained(CHECKPOINT)
    return JudgeProcessor.load(CHECKPOINT, config, spec, get_template("fit-late-v1", kind))


def content(judge, shown):
    if isinstance(shown, str):
        return judge.prepare_text(shown)
    if isinstance(shown, tuple):
        return judge.prepare_frames(Frames.of(shown, FRAME_RATE))
    return (judge.prepare_image(shown),)


def leaves(turn: Turn):
    """Each path from the turn to one of its ends."""
    if not turn.branches:
        yield (turn,)
    for branch in turn.branches:
        yield from ((turn, *path) for path in leaves(branch))


@pytest.mark.parametrize("name", ["edits", "clips"])
def test_a_branch_is_read_as_if_it_were_alone(name, viewer, collate):
    turn = without_slots(lessons.fit(lessons.WORLDS[name], np.random.default_rng(1)))
    alone = [
        Turn(question=tuple(part for each in path for part in each.question), answer=path[-1].answer)
        for path in leaves(turn)
    ]
    together = logits(viewer, collate([turn]))
    # Seconds make neighbours in time of a video's tokens.
    seconds = {"second_per_grid_ts": torch.tensor([2 / FRAME_RATE])} if name == "clips" else {}
    apart = torch.cat([logits(viewer, collate([each]) | seconds) for each in alone])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=0)


def without_slots(turn: Turn) -> Turn:
    """The same, with answers that see all of the path to them."""
    return replace(turn, branches=tuple(map(without_slots, turn.branches)), slot=None)


@torch.inference_mode()
def logits(model, batch):
    labels = batch.pop("labels")[:, 1:]
    return model(**batch).logits[:, :-1][labels != IGNORED]


@pytest.mark.parametrize("name", [name for name in lessons.WORLDS if name != "clips"])
def test_claims_hold_as_the_oracle_finds_in_what_is_shown(name):
    rng = np.random.default_rng(2)
    world: World = lessons.WORLDS[name]
    for _ in range(10):
        turn = lessons.fit(world, rng)
        _, prompt, *around = turn.question
        assert prompt in {prompt.text for prompt in world.prompts.split("train")}
        context = [encode_png(part) for part in around if isinstance(part, Image.Image)]
        for branch in turn.branches:
            shown = branch.question[0]
            found = world.assess(prompt, [shown if name == "questions" else encode_png(shown)], context)
            for leaf in branch.branches:
                criterion = leaf.question[1] if len(leaf.question) == 3 else ""
                (assessment,) = found[criterion]
                held = [answer == "yes" for answer in leaf.answer.split()]
                assert (sum(held), len(held)) == (assessment.held, assessment.total)


def test_a_sentence_is_looked_up_where_its_thing_is():
    rng = np.random.default_rng(3)
    for _ in range(20):
        turn = lessons.lookup(rng)
        (picture,) = (part for part in turn.question if isinstance(part, Image.Image))
        seen = read(picture)
        for branch in turn.branches:
            things = questions.read_answer(branch.question[0])
            for thing, place in zip(things, branch.answer.split(" and "), strict=True):
                cells = [
                    f"{CELLS[int(each.x * GRID)]} {CELLS[int(each.y * GRID)]}"
                    for each in thing.noun.among(seen)
                ]
                assert cells == ([] if place == "none" else [place])


def test_answers_to_questions_in_one_word_are_those_in_sentences():
    rng = np.random.default_rng(4)
    world = lessons.WORLDS["questions"]
    for _ in range(20):
        turn = lessons.compare(rng)
        _, prompt, _, picture, _ = turn.question
        for branch in turn.branches:
            both, right = (leaf.answer for leaf in branch.branches)
            same = [a == b for a, b in (pair.split() for pair in both.split(" ; "))]
            assert [answer == "yes" for answer in right.split()] == same
            ((assessment,),) = world.assess(prompt, [branch.question[0]], [encode_png(picture)]).values()
            assert assessment.held == sum(same)


def test_each_word_of_a_template_is_a_token_or_two():
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    fits = [t.named(noun) for t in TEMPLATES.values() for noun in ("image", "video", "answer")]
    words = {
        word.strip(".,:?") for t in fits for word in t.turn.split() if "{" not in word and "<" not in word
    }
    assert all(len(tokenizer(f" {word}")["input_ids"]) <= 2 for word in words if word)


def test_muon_is_that_of_torch_but_for_rounding():
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 40), (40, 16), (24, 24), (16, 40)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.95}
    pair = (Muon(ours, **settings), torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"))
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in pair:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)
