"""Generative judges against `transformers` on the same conversation, from the import to the matrix."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from prefrm.bundle import load_bundle
from prefrm.cli import run
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.imports.importing import import_judge
from prefrm.media import encode_png
from prefrm.winmatrix import Group, WinMatrix
from tests.prefrm.imports.generative_checkpoints import Conversation, save_generative

CAPTION = "a red cube on a [blue] table"
QUESTION = "Which image is better? Text Caption: [{prompt}]"
RANK = f"{{image}}{{image}}{QUESTION}\n{{answer}}\nI1 is better\nI2 is better\nBoth\n"
PAIR = f"{{image}}{{image}}{QUESTION}\n{{answer}}\nI1\nI2\n"
FORCED = f"{{image}}{{image}}{QUESTION}\n{{answer}}Image{{space}}\n1\n2\n"
YES_NO = "{image}Is it [{prompt}]?\n{answer}\nYes|yes\nNo|no\n"
OFF = ~np.eye(3, dtype=bool)


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60 + 90 * seed, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURES = [picture(0, 48, 32), picture(1, 32, 32), picture(2, 20, 70)]
GROUP = Group(prompt=CAPTION, candidates=tuple(map(encode_png, PICTURES)))
FORMS = {
    "qwen2_5_vl": ("qwen2_5_vl", False),
    "new names": ("qwen2_5_vl", True),
    "qwen3_vl": ("qwen3_vl", False),
}


@pytest.fixture(scope="module", params=sorted(FORMS))
def published(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Conversation]:
    """A folder with the repository, and the reference."""
    folder = tmp_path_factory.mktemp("published")
    family, new_names = FORMS[request.param]
    return folder, save_generative(folder, family, new_names=new_names)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Conversation]:
    folder = tmp_path_factory.mktemp("repository")
    return folder, save_generative(folder)


def scored(
    name: str,
    source: Path,
    wording: str | None,
    tmp_path: Path,
    *,
    group: Group = GROUP,
    bound: float | None = 0.0,
) -> WinMatrix:
    """The matrix of the bundle, whose model is random and seldom says what the wording asks for."""
    path = None
    if wording is not None:
        path = tmp_path / "wording.txt"
        path.write_text(wording)
    import_judge(name, str(source), tmp_path / "bundle", template=path)
    judge = load_bundle(tmp_path / "bundle", "cpu").judge
    if bound is not None:
        judge.spec = replace(judge.spec, min_label_mass=bound)
    return Engine(judge).score([group])[0]


def test_unifiedreward_is_the_probability_of_its_three_sentences(published, tmp_path: Path):
    folder, reference = published
    matrix = scored("unifiedreward", folder, RANK, tmp_path)
    z, tie, mass = np.zeros((3, 3)), np.zeros((3, 3)), np.ones((3, 3))
    for i, j in permutations(range(3), 2):
        text, shown = QUESTION.format(prompt=CAPTION), [PICTURES[i], PICTURES[j]]
        first, second, both = (reference.probability(shown, text, answer) for answer in ("I1", "I2", "B"))
        z[i, j] = np.log((first + both / 2) / (second + both / 2))
        mass[i, j] = first + second + both
        tie[i, j] = both / mass[i, j]
    expected = WinMatrix.from_order_logits(z)
    np.testing.assert_allclose(matrix.p, expected.p, atol=1e-6)
    np.testing.assert_allclose(matrix.order_gap, expected.order_gap, atol=1e-6)
    np.testing.assert_allclose(matrix.tie[OFF], ((tie + tie.T) / 2)[OFF], atol=1e-6)
    np.testing.assert_allclose(matrix.label_mass[OFF], np.minimum(mass, mass.T)[OFF], rtol=1e-4)
    assert matrix.order_gap.max() > 1e-4


def test_a_forced_prefix_leaves_the_tie_out(repository, tmp_path: Path):
    folder, reference = repository
    matrix = scored("unifiedreward", folder, FORCED, tmp_path)
    text, z = QUESTION.format(prompt=CAPTION), np.zeros((3, 3))
    for i, j in permutations(range(3), 2):
        shown = [PICTURES[i], PICTURES[j]]
        first, second = (reference.probability(shown, text, digit, "Image ") for digit in "12")
        z[i, j] = np.log(first / second)
    np.testing.assert_allclose(matrix.p, WinMatrix.from_order_logits(z).p, atol=1e-6)
    assert np.isnan(matrix.tie).all() and np.abs(matrix.p - 0.5).max() > 5e-4


def test_unifiedreward_edit_sees_the_source_before_both_edits(repository, tmp_path: Path):
    folder, reference = repository
    source = picture(1, 40, 60)
    group = replace(GROUP, context=(encode_png(source),))
    matrix = scored("unifiedreward-edit", folder, "{context}" + PAIR, tmp_path, group=group)
    text, z = QUESTION.format(prompt=CAPTION), np.zeros((3, 3))
    for i, j in permutations(range(3), 2):
        shown = [source, PICTURES[i], PICTURES[j]]
        first, second = (reference.probability(shown, text, answer) for answer in ("I1", "I2"))
        z[i, j] = np.log(first / second)
    np.testing.assert_allclose(matrix.p, WinMatrix.from_order_logits(z).p, atol=1e-6)
    assert np.abs(matrix.p - 0.5).max() > 5e-4


def test_paco_compares_each_image_with_a_reference(repository, tmp_path: Path):
    folder, reference = repository
    source = picture(1, 40, 60)
    group = replace(GROUP, context=(encode_png(source),))
    matrix = scored("paco", folder, "{context}" + YES_NO, tmp_path, group=group)
    text = f"Is it [{CAPTION}]?"
    p = [[reference.probability([source, image], text, letter) for letter in "YyNn"] for image in PICTURES]
    yes, no = np.array(p)[:, :2].sum(axis=1), np.array(p)[:, 2:].sum(axis=1)
    z = np.log(yes / no)[:, None] - np.log(yes / no)
    np.testing.assert_allclose(matrix.p, 1 / (1 + np.exp(-z)), atol=1e-6)
    assert np.abs(z).max() > 1e-3


@pytest.mark.parametrize("wording", [YES_NO, None])
def test_a_utility_is_the_log_odds_of_yes(repository, tmp_path: Path, wording: str | None):
    folder, reference = repository
    matrix = scored("vqascore", folder, wording, tmp_path)
    asked = load_bundle(tmp_path / "bundle", "cpu").judge.processor.template
    (turn,) = asked.messages(CAPTION)
    text = turn["content"][-1]["text"]
    p = [[reference.probability([image], text, letter) for letter in "YyNn"] for image in PICTURES]
    yes, no = np.array(p)[:, :2].sum(axis=1), np.array(p)[:, 2:].sum(axis=1)
    u = np.log(yes / no)
    np.testing.assert_allclose(matrix.p, 1 / (1 + np.exp(u[None, :] - u[:, None])), atol=1e-6)
    assert np.abs(matrix.p - 0.5).max() > 1e-3


def test_a_model_that_would_say_something_else_is_not_believed(repository, tmp_path: Path):
    matrix = scored("unifiedreward", repository[0], RANK, tmp_path, bound=None)
    assert not matrix.valid.any()
    assert all("less than min_label_mass=0.5" in error for error in matrix.errors)


@pytest.mark.parametrize(
    ("name", "wording", "message"),
    [
        ("unifiedreward", None, "give --template FILE"),
        ("unifiedreward", YES_NO, "trained with {image}{image}; template 'file:t.txt' has {image}$"),
        ("paco", None, "give --template FILE"),
        ("unifiedreward", "{context}" + PAIR, "trained with {image}{image}; .* has {context}{image}{image}"),
        ("unifiedreward-edit", PAIR, "trained with {context}{image}{image}"),
        ("paco", YES_NO, "trained with {context}{image}; .* has {image}$"),
        ("paco", "{context}" + PAIR, "has {context}{image}{image}$"),
        ("paco", "{context}{image}Rate {prompt}.", "with a yes and a no after {answer}"),
        ("vqascore", RANK, "must ask about one image"),
        ("vqascore", "{image}Rate {prompt}.", "with a yes and a no after {answer}"),
    ],
)
def test_a_wording_that_does_not_fit_is_refused(
    repository, tmp_path: Path, name: str, wording: str | None, message: str
):
    template = None
    if wording is not None:
        template = tmp_path / "t.txt"
        template.write_text(wording)
    with pytest.raises(ConfigError, match=message):
        import_judge(name, str(repository[0]), tmp_path / "b", template=template)
    assert not (tmp_path / "b").exists()


def test_weights_that_do_not_fit_are_named(repository, tmp_path: Path):
    folder, _ = repository
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["rm_head.weight"] = weights.pop("model.norm.weight")
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 missing .*norm\.weight.*1 unexpected .*rm_head\.weight"):
        import_judge("vqascore", str(other), tmp_path / "b")


def test_a_configuration_that_names_kernels_is_refused(repository, tmp_path: Path):
    for path in repository[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"attn_implementation": "somebody/kernels"})
    )
    with pytest.raises(ConfigError, match="attn_implementation must be one of"):
        import_judge("vqascore", str(tmp_path), tmp_path / "b")


def test_the_command_imports_with_a_wording(repository, tmp_path: Path, capsys):
    wording = tmp_path / "rank.txt"
    wording.write_text(RANK)
    command = ["import", "unifiedreward", str(repository[0]), "--template", str(wording)]
    assert run([*command, "--out", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr()
    assert (
        "verdict judge of images (joint) on unifiedreward, uncalibrated" in printed.out
        and "MIT" in printed.err
    )
