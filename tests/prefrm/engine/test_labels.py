"""Answers of several tokens, against the forward pass of `transformers`, and their probability in all."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode
from prefrm.winmatrix import Group, WinMatrix, unjudged_reasons
from tests.prefrm.judge.families import save_checkpoint
from tests.prefrm.judge.references import own_logits

PROMPT = "a red circle"
PAIR = "{image}{image}Which shows [{prompt}]?\n{answer}\nImage 1 is better\nImage 2 is better\n"
# Few letters: to a random model, a tie is the likelier the more letters the others have.
RANK = "{image}{image}Which shows [{prompt}]?\n{answer}\nI1\nI2\nBoth\n"
FORCED = "{image}{image}Which shows [{prompt}]?\n{answer}Image{space}\n1\n2\n"
YES_NO = "{image}Does it show [{prompt}]?\n{answer}\nYes|yes\nNo|no\n"
SIZES = ((48, 32), (32, 32), (16, 64))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("qwen2_5_vl", "qwen3_vl", "llava_onevision")
    return {name: save_checkpoint(tmp_path_factory.mktemp(name), name) for name in names}


@pytest.fixture
def images(png) -> list[bytes]:
    return [png(n, width=w, height=h, top=64 * n + 63) for n, (w, h) in enumerate(SIZES)]


def build(tmp_path: Path, checkpoint: Path | str, text: str, **fields) -> Judge:
    (tmp_path / "t.txt").write_text(text)
    head = {"head": "verdict", "attention": "joint"} if text.count("{image}") == 2 else {"head": "scalar"}
    return Judge.from_base(
        JudgeSpec(base_model=str(checkpoint), template=f"file:{tmp_path}/t.txt", **head, **fields), "cpu"
    )


def own_probabilities(judge: Judge, shown: list[Image.Image], answers: Sequence[str]) -> list[float]:
    """Of each answer, of the tokens that `transformers` would have to say."""
    found = []
    for answer in answers:
        said = judge.processor.tokenizer.encode(answer, add_special_tokens=False)
        ids, logits_LV = own_logits(judge, PROMPT, shown, answer)
        assert ids[-len(said) :] == said
        rows_LV = logits_LV[-len(said) - 1 : -1].log_softmax(dim=-1)
        found.append(rows_LV[range(len(said)), said].sum().exp().item())
    return found


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
@pytest.mark.parametrize(
    ("text", "answers", "ties"),
    [(RANK, ("I1", "I2", "B"), True), (PAIR, ("Image 1", "Image 2"), False)],
    ids=["rank", "pair"],
)
@torch.inference_mode()
def test_a_verdict_of_sentences_equals_the_forward_pass_of_transformers(
    checkpoints, tmp_path: Path, images, family: str, text: str, answers: Sequence[str], ties: bool
):
    judge = build(tmp_path, checkpoints[family], text, ties=ties)
    check_against_transformers(judge, images, answers)


def check_against_transformers(judge: Judge, images: list[bytes], answers: Sequence[str]) -> None:
    (matrix,) = Engine(judge).score([Group(prompt=PROMPT, candidates=tuple(images))])
    pictures = [decode(image) for image in images]
    z, tie, mass = np.zeros((3, 3)), np.zeros((3, 3)), np.ones((3, 3))
    for i, j in permutations(range(3), 2):
        first, second, *both = own_probabilities(judge, [pictures[i], pictures[j]], answers)
        half = sum(both) / 2
        mass[i, j] = first + second + sum(both)
        z[i, j], tie[i, j] = np.log((first + half) / (second + half)), sum(both) / mass[i, j]
    off = ~np.eye(3, dtype=bool)
    expected = WinMatrix.from_order_logits(z)
    np.testing.assert_allclose(matrix.p, expected.p, atol=1e-6)
    np.testing.assert_allclose(matrix.order_gap, expected.order_gap, atol=1e-6)
    assert matrix.order_gap[off].max() > 5e-4
    assert matrix.label_mass is not None
    np.testing.assert_allclose(matrix.label_mass[off], np.minimum(mass, mass.T)[off], rtol=1e-4)
    if judge.spec.ties:
        np.testing.assert_allclose(matrix.tie[off], ((tie + tie.T) / 2)[off], atol=1e-6)


@torch.inference_mode()
def test_the_published_sentences_of_a_qwen_tokenizer_branch_at_their_digit(tmp_path: Path, images):
    """Of the shipped captioner, whose tokenizer cuts words and digits as Qwen's."""
    sentences = "Image 1 is better\nImage 2 is better\n"
    text = f"{{image}}{{image}}Better?\nText Caption: [{{prompt}}]\n{{answer}}\n{sentences}"
    judge = build(tmp_path, "shipped:shapes-captioner", text)
    tokenizer, labels = judge.processor.tokenizer, judge.processor.layout.labels
    assert tokenizer.decode(list(labels.path)) == "Image "
    assert [tokenizer.decode([token]) for ((_, token),) in labels.branches] == ["1", "2"]
    check_against_transformers(judge, images, ("Image 1", "Image 2"))


@torch.inference_mode()
def test_a_forced_prefix_reads_the_digit_under_the_condition_that_it_was_said(
    checkpoints, tmp_path: Path, images
):
    forced = build(tmp_path, checkpoints["qwen2_5_vl"], FORCED, min_label_mass=0.0)
    group = Group(prompt=PROMPT, candidates=tuple(images))
    (matrix,) = Engine(forced).score([group])
    (whole,) = Engine(build(tmp_path, checkpoints["qwen2_5_vl"], PAIR)).score([group])
    np.testing.assert_allclose(matrix.p, whole.p, atol=1e-6)
    assert matrix.label_mass is not None and whole.label_mass is not None
    off = ~np.eye(3, dtype=bool)
    assert (matrix.label_mass[off] > whole.label_mass[off]).all()


@torch.inference_mode()
def test_a_utility_of_yes_and_no_equals_the_forward_pass_of_transformers(checkpoints, tmp_path: Path, images):
    judge = build(tmp_path, checkpoints["qwen2_5_vl"], YES_NO)
    (matrix,) = Engine(judge).score([Group(prompt=PROMPT, candidates=tuple(images))])
    own = np.array([own_probabilities(judge, [decode(image)], ("Y", "y", "N", "n")) for image in images])
    yes, no = own[:, 0] + own[:, 1], own[:, 2] + own[:, 3]
    u, mass = np.log(yes / no), yes + no
    np.testing.assert_allclose(matrix.p, 1 / (1 + np.exp(u[None, :] - u[:, None])), atol=1e-6)
    off = ~np.eye(3, dtype=bool)
    assert matrix.label_mass is not None
    np.testing.assert_allclose(matrix.label_mass[off], np.minimum(mass[:, None], mass)[off], rtol=1e-4)


@pytest.mark.parametrize("text", [RANK, YES_NO], ids=["verdict", "scalar"])
def test_what_else_is_in_a_call_changes_no_bit(checkpoints, tmp_path: Path, images, text: str):
    judge = build(tmp_path, checkpoints["qwen2_5_vl"], text, ties=text == RANK)
    group = Group(prompt=PROMPT, candidates=tuple(images))
    other = Group(prompt="x", candidates=tuple(images[:2]))
    for engine in (Engine(judge), Engine(judge, share=True, tokens=256)):
        (alone,) = engine.score([group])
        assert alone.equals(engine.score([other, group, other])[1])
        (turned,) = engine.score([group.permuted([2, 0, 1])])
        assert alone.permuted([2, 0, 1]).equals(turned)


def masses(matrix: WinMatrix) -> list[float]:
    assert matrix.label_mass is not None
    return sorted({float(mass) for mass in matrix.label_mass[np.triu_indices(matrix.size, 1)]})


@pytest.mark.parametrize("text", [RANK, YES_NO], ids=["verdict", "scalar"])
def test_a_pair_whose_answers_are_improbable_is_not_judged(
    checkpoints, tmp_path: Path, images, text: str, caplog
):
    group = Group(prompt=PROMPT, candidates=tuple(images))
    fields = {"ties": text == RANK}
    (free,) = Engine(build(tmp_path, checkpoints["qwen2_5_vl"], text, **fields)).score([group])
    least, *_, most = masses(free)
    between = (least + most) / 2
    bounded = build(tmp_path, checkpoints["qwen2_5_vl"], text, min_label_mass=between, **fields)
    (matrix,) = Engine(bounded).score([group])
    assert matrix.label_mass is not None and free.label_mass is not None
    np.testing.assert_array_equal(matrix.label_mass, free.label_mass)
    off = ~np.eye(3, dtype=bool)
    good = off & (free.label_mass >= between)
    assert good.any() and not good[off].all()
    np.testing.assert_array_equal(matrix.valid & off, good)
    np.testing.assert_array_equal(matrix.p[good], free.p[good])
    assert np.isnan(matrix.p[off & ~good]).all()
    assert "less than min_label_mass" in caplog.text
    assert all("less than min_label_mass" in line for line in unjudged_reasons(matrix, "abc"))
    for i, j in np.argwhere(np.triu(off & ~good)):
        assert "less than min_label_mass" in matrix.reason(i, j)


def test_where_all_answers_are_improbable_each_candidate_has_the_reason(checkpoints, tmp_path: Path, images):
    judge = build(tmp_path, checkpoints["qwen2_5_vl"], PAIR, min_label_mass=0.999)
    (matrix,) = Engine(judge).score([Group(prompt=PROMPT, candidates=tuple(images))])
    assert not matrix.valid.any()
    assert all("probability of" in error and "min_label_mass=0.999" in error for error in matrix.errors)


def test_a_budget_of_pairs_infers_nothing_from_improbable_answers(checkpoints, tmp_path: Path, images):
    group = Group(prompt=PROMPT, candidates=tuple(images))
    bounded = build(tmp_path, checkpoints["qwen2_5_vl"], PAIR, min_label_mass=0.999)
    (matrix,) = Engine(bounded, pairs=2).score([group])
    assert not matrix.known.any()
