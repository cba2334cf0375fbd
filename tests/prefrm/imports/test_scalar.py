"""Scalar judges against references written from the published descriptions, and their traps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prefrm.bundle import load_bundle, read_manifest
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.imports.importing import import_judge
from prefrm.judge import DifferentiableJudge, Judge
from prefrm.media import encode_png
from prefrm.scorers.ensemble import Ensemble, Member
from prefrm.winmatrix import Group, WinMatrix
from tests.prefrm.imports.scalar_checkpoints import (
    Read,
    ranknet,
    save_base,
    save_editreward,
    save_hpsv3,
    save_skywork,
    save_videoreward,
)

PROMPT = "a red cube on a blue table"
WORDING = "{image}Rate this image.\nPrompt - {prompt}\n\n\nOverall: <|Reward|>\n\nEND\n"
CHAT = "<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60 + 90 * seed, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Smaller and larger than the pixels that HPSv3 makes of every image.
SOURCE = picture(1, 320, 260)
PICTURES = [picture(0, 300, 120), picture(1, 448, 448), picture(2, 500, 700)]


def asked(wording: str, prompt: str = PROMPT) -> str:
    """The conversation about one image, as the chat template of the tests renders it."""
    turn, _, answer = wording.replace("{image}", IMAGE).replace("{prompt}", prompt).partition("\n{answer}")
    return CHAT.format(turn=turn) + answer


def written(path: Path, wording: str) -> Path:
    path.write_text(wording)
    return path


@torch.inference_mode()
def readings(judge: Judge) -> torch.Tensor:
    """The readings of the pictures, in order; of several readouts in their order."""
    images = [judge.processor.prepare_image(image) for image in PICTURES]
    tree = judge.processor.tree(PROMPT, dict(enumerate(images)))
    batch = judge.processor.collate([(tree, [(n, n) for n in range(len(images))])])
    found = judge.read(judge.hidden(batch))
    return found[batch.pairs_N2[:, : batch.pairs_N2.shape[1] // 2]].squeeze(1)


@pytest.fixture(scope="module")
def hpsv3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Read, dict[str, torch.Tensor]]:
    """A folder with the published file, its base, a wording and the bundle; the reference and the weights."""
    folder = tmp_path_factory.mktemp("hpsv3")
    save_base(folder / "base")
    reference, weights = save_hpsv3(folder / "HPSv3.safetensors")
    imported(folder, folder / "HPSv3.safetensors", folder / "bundle")
    return folder, reference, weights


def imported(folder: Path, source: Path, out: Path) -> None:
    template = written(folder / "hpsv3.txt", WORDING)
    import_judge("hpsv3", str(source), out, base=str(folder / "base"), template=template)


@pytest.fixture(scope="module")
def judge(hpsv3) -> Judge:
    return load_bundle(hpsv3[0] / "bundle", "cpu").judge


def expected_hpsv3(hpsv3, *, mrope: bool = False, token: int | None = None) -> torch.Tensor:
    """Mean and log sigma [K, 2] of the pictures, read at that place instead of the token, if it is given."""
    _, reference, weights = hpsv3
    found = []
    for image in PICTURES:
        ids, hidden = reference.hidden(asked(WORDING), image, mrope=mrope)
        (at,) = (ids == reference.tokenizer.convert_tokens_to_ids("<|Reward|>")).nonzero()[0]
        found.append(ranknet(weights, "rm_head.", hidden[at if token is None else token]))
    return torch.stack(found)


def test_hpsv3_is_its_own_forward_pass(hpsv3, judge: Judge):
    found, expected = readings(judge), expected_hpsv3(hpsv3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (expected.std(dim=0) > 1e-3).all()


def test_hpsv3_has_sequential_positions_and_reads_at_its_token(hpsv3, judge: Judge):
    found = readings(judge)
    for trap in (expected_hpsv3(hpsv3, mrope=True), expected_hpsv3(hpsv3, token=-1)):
        assert (found - trap).abs().min() > 1e-4


def test_hpsv3_reads_nothing_after_its_token(hpsv3, judge: Judge, tmp_path: Path):
    folder, _, _ = hpsv3
    template = written(tmp_path / "t.txt", WORDING.replace("\n\nEND\n", " and anything else"))
    source = str(folder / "HPSv3.safetensors")
    import_judge("hpsv3", source, tmp_path / "b", base=str(folder / "base"), template=template)
    assert torch.equal(readings(load_bundle(tmp_path / "b", "cpu").judge), readings(judge))


def test_hpsv3_gives_every_image_as_many_pixels(judge: Judge):
    """But for whole tokens: 7 x 3 of a small image, 4 x 4 of one that has them, 3 x 4 of a large one."""
    assert [judge.processor.prepare_image(image).tokens for image in PICTURES] == [21, 16, 12]


def test_a_win_rate_of_hpsv3_is_an_expectation_over_uncertain_utilities(hpsv3, judge: Judge):
    mean, log_sigma = expected_hpsv3(hpsv3).double().unbind(dim=-1)
    variance = log_sigma.exp().square()
    z = (mean[:, None] - mean) / (1 + torch.pi / 8 * (variance[:, None] + variance)).sqrt()
    group = Group(prompt=PROMPT, candidates=tuple(map(encode_png, PICTURES)))
    matrix = Engine(judge).score([group])[0]
    np.testing.assert_allclose(matrix.p, z.sigmoid().numpy(), atol=1e-6)
    assert np.abs(matrix.p - 0.5).max() > 1e-3


def test_hpsv3_may_leave_its_uncertainty_out(hpsv3, tmp_path: Path):
    folder, _, _ = hpsv3
    options = {"base": str(folder / "base"), "template": written(tmp_path / "t.txt", WORDING)}
    source, out = str(folder / "HPSv3.safetensors"), tmp_path / "b"
    origin = import_judge("hpsv3", source, out, uncertainty="ignore", **options).origin
    assert origin is not None and not origin.is_log_odds
    mean = expected_hpsv3(hpsv3)[:, 0]
    group = Group(prompt=PROMPT, candidates=tuple(map(encode_png, PICTURES)))
    matrix = Engine(load_bundle(out, "cpu").judge).score([group])[0]
    np.testing.assert_allclose(matrix.p, (mean[:, None] - mean).sigmoid().numpy(), atol=1e-6)


def test_hpsv3_has_gradients_in_the_pixels(judge: Judge):
    pixels = torch.rand(2, 3, 60, 80, requires_grad=True)
    utilities = DifferentiableJudge(judge).utilities(PROMPT, pixels)
    (slopes,) = torch.autograd.grad(utilities[0], pixels)
    assert slopes[0].abs().max() > 0 and not slopes[1].any()
    assert not any(parameter.requires_grad for parameter in judge.parameters())


def test_an_import_records_what_was_read(hpsv3):
    manifest = read_manifest(hpsv3[0] / "bundle")
    assert manifest.origin is not None and {"HPSv3.safetensors", "base/config.json"} <= {
        *manifest.origin.sha256
    }
    assert manifest.spec.template == "file:hpsv3.txt" and manifest.template.turn.endswith("END")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.norm.weight"), "1 missing .*norm.weight"),
        (lambda w: w.pop("rm_head.3.bias"), r"1 missing \(layers.0.3.bias\)"),
        (lambda w: w.update({"rm_head.7.weight": torch.zeros(2)}), r"1 unexpected \(layers.0.7.weight\)"),
        (lambda w: w.update({"model.junk": torch.zeros(2)}), "1 unexpected .*junk"),
        (lambda w: w.update({"visual_junk": torch.zeros(2)}), r"1 unknown weights \(visual_junk\)"),
        (
            lambda w: w.update({"rm_head.5.weight": torch.zeros(1, 16)}),
            r"layers.0.5.weight is \[1, 16\] instead of \[2, 16\]",
        ),
        (
            lambda w: w.update(
                {k: w[k][:-1].clone() for k in ("model.embed_tokens.weight", "lm_head.weight")}
            ),
            "has embeddings of 263 tokens, and the tokenizer of base has more",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(hpsv3, tmp_path: Path, change, message: str):
    folder, _, weights = hpsv3
    other = dict(weights)
    change(other)
    save_file(other, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ConfigError, match=message):
        imported(folder, tmp_path / "HPSv3.safetensors", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_wording_must_be_given_and_have_the_token(hpsv3, tmp_path: Path):
    folder, _, _ = hpsv3
    options = {"base": str(folder / "base")}
    with pytest.raises(ConfigError, match="give --template FILE"):
        import_judge("hpsv3", str(folder), tmp_path / "b", **options)
    for wording, message in (
        ("{image}Rate {prompt}!", r"needs <\|Reward\|> after {prompt}"),
        ("{image}Rate: <|Reward|> {prompt}!", r"needs <\|Reward\|> after {prompt}"),
        ("{context}" + WORDING, r"trained with {image}; .* has {context}{image}$"),
    ):
        template = written(tmp_path / "t.txt", wording)
        with pytest.raises(ConfigError, match=message):
            import_judge("hpsv3", str(folder), tmp_path / "b", template=template, **options)


@pytest.mark.parametrize("name", ["hpsv3", "videoreward"])
def test_another_base_is_refused_before_the_weights_are_read(tmp_path: Path, name: str):
    tokens = "".join(f"<|{token}|>" for token in ("Reward", "VQ_reward", "MQ_reward", "TA_reward"))
    options = {"template": written(tmp_path / "t.txt", f"{{image}}{{prompt}}{tokens}")}
    save_base(tmp_path / "base", "qwen2_5_vl")
    for base, message in (("base", "is a 'qwen2_5_vl'"), (".", "config.json cannot be read")):
        with pytest.raises(ConfigError, match=message):
            import_judge(name, "hf://org/large", tmp_path / "b", base=str(tmp_path / base), **options)


EDITS = (
    "{context}{image}Followed: {prompt}? <|Reward|>\nEND",
    "{context}{image}How good? {prompt} <|Reward|>",
)


class Identified:
    """An engine as a member of an ensemble."""

    def __init__(self, judge: Judge) -> None:
        self.engine = Engine(judge)

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        return self.engine.score(groups)

    def identity(self) -> str:
        return "a judge"


@pytest.mark.parametrize(("family", "mrope"), [("qwen2_5_vl", False), ("qwen3_vl", True)])
def test_editreward_is_an_ensemble_of_its_two_heads(tmp_path: Path, family: str, mrope: bool):
    """Of the source and an edit of it, each asked about in two conversations; the mean of both means."""
    save_base(tmp_path / "base", family)
    reference, weights = save_editreward(tmp_path / "model.safetensors", family)
    members, expected = [], torch.zeros(len(PICTURES))
    for n, (name, wording) in enumerate(zip(("following", "quality"), EDITS, strict=True)):
        template, out = written(tmp_path / f"{name}.txt", wording), tmp_path / name
        options = {"base": str(tmp_path / "base"), "template": template}
        import_judge(f"editreward-{name}", str(tmp_path / "model.safetensors"), out, **options)
        members.append(Member(name=name, scorer=Identified(load_bundle(out, "cpu").judge)))
        for place, image in enumerate(PICTURES):
            text = asked(wording.replace("{context}", IMAGE))
            ids, hidden = reference.hidden(text, SOURCE, image, mrope=mrope)
            at = (ids == reference.tokenizer.convert_tokens_to_ids("<|Reward|>")).nonzero()[0, 0]
            expected[place] += ranknet(weights, f"rm_heads.head_{n}.", hidden[at])[0] / 2
    pictures, source = tuple(map(encode_png, PICTURES)), encode_png(SOURCE)
    group = Group(prompt=PROMPT, candidates=pictures, context=(source,))
    (matrix,) = Ensemble(members).score([group])
    z = expected[:, None] - expected
    np.testing.assert_allclose(matrix.p, z.sigmoid().numpy(), atol=1e-6)
    assert z.abs().max() > 1e-2
    # Another source is another question, and without one nothing can be judged.
    engine = members[0].scorer.engine
    other, without = replace(group, context=(pictures[0],)), replace(group, context=())
    found = engine.score([group, other, without, group])
    assert not np.array_equal(found[0].p, found[1].p) and found[3].equals(found[0])
    assert not found[2].judged.any() and "has no context image" in found[2].errors[0]
    (broken,) = engine.score([replace(group, context=(b"no image",))])
    assert not broken.judged.any() and "a context image cannot be read" in broken.errors[0]


def test_a_wording_for_editreward_needs_the_source(tmp_path: Path):
    save_base(tmp_path / "base", "qwen2_5_vl")
    save_editreward(tmp_path / "model.safetensors")
    options = {"base": str(tmp_path / "base"), "template": written(tmp_path / "t.txt", WORDING)}
    with pytest.raises(ConfigError, match=r"trained with {context}{image}; .* has {image}$"):
        import_judge("editreward-quality", str(tmp_path), tmp_path / "b", **options)


def test_a_wording_for_skywork_needs_an_answer(tmp_path: Path):
    template = written(tmp_path / "t.txt", "{image}Does it show {prompt}?")
    with pytest.raises(ConfigError, match=r"needs one after {answer}"):
        import_judge("skywork-vl", "hf://org/large", tmp_path / "b", template=template)


def test_skywork_reads_the_end_of_a_closed_conversation(tmp_path: Path):
    reference, head = save_skywork(tmp_path)
    wording = "{image}Does it show {prompt}?\n{answer}It does, well."
    template = written(tmp_path / "t.txt", wording)
    import_judge("skywork-vl", str(tmp_path), tmp_path / "b", template=template)
    judge = load_bundle(tmp_path / "b", "cpu").judge
    text = asked(wording) + "<|im_end|>\n"
    states = [reference.hidden(text, image, mrope=True)[1][-1] for image in PICTURES]
    # The published score has a bias, which is the same for all.
    expected = torch.stack(states) @ head["v_head.summary.weight"][0]
    torch.testing.assert_close(readings(judge), expected, atol=1e-6, rtol=1e-6)
    assert expected.std() > 1e-3


VIDEO_WORDING = "{image}VQ: <|VQ_reward|>\nMQ: <|MQ_reward|>\nFor {prompt} TA: <|TA_reward|>\nEND"


def test_videoreward_has_one_output_or_three_and_its_settings(tmp_path: Path):
    save_base(tmp_path / "base")
    save_videoreward(tmp_path, 2)
    source, template = str(tmp_path / "checkpoint-11352"), written(tmp_path / "t.txt", VIDEO_WORDING)
    options = {"base": str(tmp_path / "base"), "template": template}
    with pytest.raises(ConfigError, match=r"rm_head.weight is \[2, 32\]; one row or 3 are expected"):
        import_judge("videoreward", source, tmp_path / "b", **options)
    (tmp_path / "model_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"model_config.json: it is not valid JSON"):
        import_judge("videoreward", source, tmp_path / "b", **options)


@pytest.mark.parametrize("outputs", [1, 3])
def test_videoreward_is_the_sum_of_three_ratings_of_a_video_of_two_frames(tmp_path: Path, outputs: int):
    save_base(tmp_path / "base")
    reference, head = save_videoreward(tmp_path, outputs)
    source = str(tmp_path / "checkpoint-11352" / "model.pth")
    template = written(tmp_path / "t.txt", VIDEO_WORDING)
    manifest = import_judge(
        "videoreward", source, tmp_path / "b", base=str(tmp_path / "base"), template=template
    )
    assert manifest.origin is not None and "model_config.json" in manifest.origin.sha256
    judge = load_bundle(tmp_path / "b", "cpu").judge
    tokens = reference.tokenizer.convert_tokens_to_ids(["<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"])
    deviations, expected = torch.tensor([2.2, 1.4, 2.5]), []
    for image in PICTURES:
        ids, hidden = reference.hidden(asked(VIDEO_WORDING), image, mrope=False)
        rows = [hidden[(ids == token).nonzero()[0, 0]] for token in tokens]
        ratings = torch.stack([row @ head[n % outputs] for n, row in enumerate(rows)])
        expected.append((ratings / deviations).sum())
    found = judge.head.utilities(readings(judge))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=1e-6)
    group = Group(prompt=PROMPT, candidates=tuple(map(encode_png, PICTURES)))
    z = found[:, None] - found
    np.testing.assert_allclose(Engine(judge).score([group])[0].p, z.sigmoid().numpy(), atol=2e-6)
