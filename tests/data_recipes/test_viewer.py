"""The shipped viewer: its lessons, its vocabulary, and the script that made it. `test_captioner` has what it
shares with the captioner."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from data_recipes.shapes.captioner.courses import Course, attend, first_tokens, weighted_loss
from data_recipes.shapes.captioner.dialogue import IGNORED, Collator, Marked, Turn
from data_recipes.shapes.captioner.model import with_layers_on_top
from data_recipes.shapes.captioner.muon import Muon
from data_recipes.shapes.captioner.tokenizer import IMAGE_PAD, VIDEO_PAD
from data_recipes.shapes.claims import Noun
from data_recipes.shapes.clips import FRAME_RATE
from data_recipes.shapes.definition import World
from data_recipes.shapes.edits import Edit
from data_recipes.shapes.questions import Part, Question
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import GRID, Scene
from data_recipes.shapes.viewer import CHECKPOINT, lessons, marks
from data_recipes.shapes.viewer.train import LESSONS
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
    turn = lessons.fit(lessons.WORLDS[name], np.random.default_rng(0), judged=True, counted=True)
    judge = processor(KINDS[name])
    *_, leaf = next(leaves(turn))
    context = [judge.prepare_image(picture) for picture in pictures(turn)]
    criterion = leaf.question[1] if len(leaf.question) == 3 else ""
    candidates = {n: content(judge, candidate(branch)) for n, branch in enumerate(turn.branches)}
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


def pictures(turn):
    return [part for part in map(unmarked, turn.question) if isinstance(part, Image.Image)]


def candidate(branch):
    """What stands before the second prompt; an answer stands there sentence by sentence."""
    parts = [unmarked(part) for part in branch.question[: branch.question.index("\nPrompt:\n")]]
    return "".join(parts) if isinstance(parts[0], str) else parts[0]


def unmarked(part):
    return part.part if isinstance(part, Marked) else part


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
    turn = lessons.fit(lessons.WORLDS[name], np.random.default_rng(1), judged=False)
    alone = [
        Turn(question=tuple(part for each in path for part in each.question), answer=path[-1].answer)
        for path in leaves(turn)
    ]
    together = logits(viewer, collate([turn]))
    # Seconds make neighbours in time of a video's tokens.
    seconds = {"second_per_grid_ts": torch.tensor([2 / FRAME_RATE])} if name == "clips" else {}
    apart = torch.cat([logits(viewer, collate([each]) | seconds) for each in alone])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=0)


@torch.inference_mode()
def logits(model, batch):
    labels = batch.pop("labels")[:, 1:]
    batch.pop("marks", None)
    return model(**batch).logits[:, :-1][labels != IGNORED]


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("name", [name for name in lessons.WORLDS if name != "clips"])
def test_claims_hold_as_the_oracle_finds_in_what_is_shown(name, judged):
    rng = np.random.default_rng(2)
    world: World = lessons.WORLDS[name]
    for _ in range(10):
        turn = lessons.fit(world, rng, judged=judged)
        prompt = turn.question[1]
        assert prompt in {prompt.text for prompt in world.prompts.split("train")}
        context = [encode_png(picture) for picture in pictures(turn)]
        for branch in turn.branches:
            shown = candidate(branch)
            found = world.assess(prompt, [shown if name == "questions" else encode_png(shown)], context)
            (leaf,) = branch.branches
            criterion = leaf.question[1] if len(leaf.question) == 3 else ""
            (assessment,) = found[criterion]
            held = [answer == "yes" for answer in leaf.answer.split()]
            assert (sum(held), len(held)) == (assessment.held, assessment.total)


def test_the_marks_of_an_edit_say_what_its_cells_should_show():
    """Faultless marks are those of results of which all claims hold, but for two things that swap places."""
    rng = np.random.default_rng(3)
    agree = []
    for _ in range(60):
        turn = lessons.fit(lessons.WORLDS["edits"], rng, judged=False)
        # What should have been added has no cell.
        for branch in turn.branches if not turn.question[1].startswith("add") else ():
            (leaf,) = branch.branches
            told = [words for words in branch.question[0].marks if words]
            assert {len(words) for words in told} <= {2, 3}
            agree.append(all(words[0] == " yes" for words in told) == ("no" not in leaf.answer))
    assert np.mean(agree) > 0.98


def test_what_an_edit_adds_is_marked_as_right_on_its_side_alone():
    edit = Edit(skill="add", noun=Noun(kind="star", color="red"), to="left")
    shown = marks.result(edit, PICTURE, Scene(shapes=(*PICTURE.shapes, *Scene.parse(ADDED).shapes)))
    assert {n: words for n, words in enumerate(shown.marks) if words} == {
        1: (" yes", " blue", " star"),
        4: (" yes", " red", " circle"),
        8: (" yes", " red", " star"),
        11: (" no", " none"),
    }


ADDED = "red star 0 2 ; red star 3 2"


def test_the_marks_of_a_context_say_which_things_are_named():
    shown = marks.context([Noun(kind="star", color="red"), Noun(kind="circle")], PICTURE)
    assert [(n, words) for n, words in enumerate(shown.marks) if words] == [(1, (" no",)), (4, (" yes",))]


RELATION = Part(skill="relation", noun=Noun(kind="star"), second=Noun(kind="circle"), axis="x")
PICTURE = Scene.parse("blue star 1 0 ; red circle 0 1")


@pytest.mark.parametrize(
    ("part", "sentence", "words"),
    [
        (Part(skill="count", noun=Noun(kind="star")), "There are two stars.", (" no", " one")),
        (Part(skill="color", noun=Noun(kind="star")), "A blue star.", (" yes", " blue")),
        (Part(skill="exists", noun=Noun(kind="square")), "There are no squares.", (" yes", " none")),
        (RELATION, "A star left of a circle.", (" no", " right")),
        (RELATION, "There is a circle left of a star.", (" yes", " left")),
    ],
)
def test_the_mark_of_a_sentence_says_what_is_true(part, sentence, words):
    other = Part(skill="exists", noun=Noun(kind="triangle"))
    text = f"A triangle. {sentence}"
    shown = tuple(marks.answer(Question(parts=(other, part)), PICTURE, text))
    assert [each.marks for each in shown] == [((" no", " none"),), (words,)]
    assert "".join(each.part for each in shown) == text


def test_a_judged_candidate_tells_how_many_claims_fail_wherever_it_is_read_again():
    rng = np.random.default_rng(4)
    for name in ("images", "edits", "questions"):
        for branch in lessons.fit(lessons.WORLDS[name], rng, judged=True, counted=True).branches:
            (leaf,) = branch.branches
            missed = ("none", "one", "two", "three", "four", "five")[min(leaf.answer.split().count("no"), 5)]
            end = branch.question.index("\nPrompt:\n")
            for part in (branch.question[end - 1], branch.question[-1], leaf.question[-1]):
                assert part.marks[-1][-1] == missed
                assert len(part.marks) == (1 if isinstance(part.part, str) else GRID * GRID + 1)


def test_each_part_of_a_question_that_is_read_again_tells_whether_it_is_answered_rightly():
    question = Question(parts=(Part(skill="exists", noun=Noun(kind="triangle")), RELATION))
    again = tuple(marks.again(question, [True, False]))
    assert "".join(part.part for part in again) == question.text
    assert [part.marks for part in again] == [((" yes",),), ((" no",),), (("one",),)]


def test_more_layers_change_nothing_until_they_learn(viewer, collate):
    deeper = with_layers_on_top(viewer, 2)
    assert deeper.config.text_config.num_hidden_layers == viewer.config.text_config.num_hidden_layers + 2
    batch = collate([lessons.reply(np.random.default_rng(0))])
    assert torch.equal(logits(deeper, dict(batch)), logits(viewer, dict(batch)))


def test_layers_on_top_learn_at_a_rate_of_their_own(viewer, collate):
    model = with_layers_on_top(viewer, 1)
    course = Course(steps=1, stages=((1.0, ("reply",)),), lr=1e-6, lr_on_top=1.0, layers_on_top=1)
    keywords = first_tokens(collate.tokenizer, ["none"])
    attend(model, course, LESSONS, collate, keywords, np.random.default_rng(0), batch_size=1)
    *_, before, new = (layer.mlp.down_proj.weight for layer in model.model.language_model.layers)
    torch.testing.assert_close(before, viewer.model.language_model.layers[-1].mlp.down_proj.weight)
    assert new.abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("name", "least"),
    [("images", 0.9), ("edits", 0.85), ("clips", 0.9), ("questions", 0.8), ("criteria", 0.9)],
)
def test_it_knows_which_claims_hold_where_a_judge_answers(name, least, viewer, collate):
    rng = np.random.default_rng(7)
    batch = collate([lessons.fit(lessons.WORLDS[name], rng, judged=True) for _ in range(24)])
    with torch.inference_mode():
        _, right = weighted_loss(viewer, batch, first_tokens(collate.tokenizer, ["yes", "no"]))
    assert right > least


def test_the_loss_is_that_of_the_answer_and_of_marks_in_pictures_and_elsewhere(collate):
    """Each is a mean, so that the many marks of a picture leave the others their weight."""

    def model(**batch):
        return SimpleNamespace(logits=logits_BTV)

    picture = Marked(render(PICTURE), ((" yes", " no"), *((),) * 15))
    batch = collate([Turn(question=(picture, Marked("a", ((" red",),))), answer="")])
    rows, tokens, words = batch["marks"].T
    logits_BTV = torch.zeros(*batch["input_ids"].shape, len(collate.tokenizer))
    # Of three equal words one is right: the other two marks are uniform over the vocabulary.
    logits_BTV[0, tokens[0], words[0]] = math.log(len(collate.tokenizer))
    nothing = math.log(len(collate.tokenizer))
    certain = math.log((2 * len(collate.tokenizer) - 1) / len(collate.tokenizer))
    uncertain = math.log(2 * len(collate.tokenizer) - 1)
    loss, _ = weighted_loss(model, batch, torch.tensor([-1]))
    assert rows.tolist() == [0, 0, 0] and tokens[0] == tokens[1]
    assert loss.item() == pytest.approx(nothing + (certain + uncertain) / 2 + nothing, rel=1e-5)


def test_numbers_of_failed_claims_have_tokens_of_their_own(collate):
    words = [*lessons.NUMBERS, *(f" {number}" for number in lessons.NUMBERS)]
    assert len({collate.tokenizer(word)["input_ids"][0] for word in words}) == len(words)


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


def test_marks_are_at_the_tokens_of_their_cells_and_at_the_last_one_of_a_text(collate):
    turns = [Turn(question=(marks.context([Noun(kind="star")], PICTURE), Marked("a b", ((" red",),)), "c"))]
    batch = collate(turns)
    row, token, word = batch["marks"].T
    assert row.tolist() == [0, 0, 0]
    ids = batch["input_ids"][0, token]
    assert collate.tokenizer.convert_ids_to_tokens(ids[:2]) == [IMAGE_PAD] * 2
    assert collate.tokenizer.decode(ids[2:]).strip() == "b"
    assert [collate.tokenizer.decode(each).strip() for each in word] == ["yes", "no", "red"]
    first = int((batch["input_ids"][0] == collate.tokenizer.convert_tokens_to_ids(IMAGE_PAD)).nonzero()[0])
    assert (token[:2] - first).tolist() == [1, 4]
