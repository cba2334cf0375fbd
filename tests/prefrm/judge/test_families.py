"""Every model family, on a tiny checkpoint of its own: against `transformers`, and through all of prefrm.

How families take images, and how many of them, is in `test_families_images`.
"""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from PIL import Image

from prefrm.bundle import load_bundle, standalone, write_bundle
from prefrm.engine import Engine
from prefrm.judge import FAMILIES, Judge, JudgeSpec, path
from prefrm.media import decode
from prefrm.prompts import get_template
from prefrm.train.adapters import add_lora
from prefrm.winmatrix import Group
from tests.prefrm.judge.comparing import compared, reading
from tests.prefrm.judge.families import TINY, save_checkpoint
from tests.prefrm.judge.references import PROCESSORS, own_reading

PROMPTS = ("a red circle left of a blue square", "x")
SIZES = ((48, 32), (32, 32), (16, 64), (100, 70))


@pytest.fixture(scope="module", params=sorted(TINY))
def checkpoint(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def wordings(tmp_path: Path) -> Path:
    """A folder with templates that show the images first."""
    (tmp_path / "pair.txt").write_text("{image}{image}Which is [{prompt}]?\n{answer}Image{space}\n1\n2\n")
    edit = "{context}{image}{image}Which edit is [{prompt}]?\n{answer}Image{space}\n1\n2\n"
    (tmp_path / "edit.txt").write_text(edit)
    (tmp_path / "one.txt").write_text("Look: {image} Rate [{prompt}] of 9:")
    return tmp_path


@pytest.fixture
def judge(checkpoint: Path) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(checkpoint)), "cpu")


@pytest.fixture
def encoded(png) -> list[bytes]:
    """Images of different sizes and brightness, so that each means something else to a random model."""
    return [
        png(seed, width=width, height=height, top=64 * seed + 63)
        for seed, (width, height) in enumerate(SIZES)
    ]


@pytest.fixture
def pictures(encoded: list[bytes]) -> list[Image.Image]:
    return [decode(data) for data in encoded]


@pytest.fixture
def groups(encoded: list[bytes]) -> list[Group]:
    return [Group(prompt=prompt, candidates=tuple(encoded)) for prompt in PROMPTS]


def lora(judge: Judge) -> Judge:
    """The judge with an adapter that changes every verdict."""
    torch.manual_seed(1)
    add_lora(judge, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():
        for name, parameter in judge.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return judge.eval()


def test_every_family_has_a_checkpoint_here():
    assert set(TINY) == set(FAMILIES) == set(PROCESSORS)


@pytest.mark.parametrize(
    ("template", "adapted"),
    [
        ("match-v1", False),
        ("match-twice-v1", True),
        ("rate-twice-v1", False),
        ("file:pair.txt", False),
        ("file:one.txt", False),
        ("file:edit.txt", False),
    ],
)
@torch.inference_mode()
def test_what_is_read_in_one_run_equals_the_forward_pass_of_transformers(
    checkpoint: Path, pictures, wordings: Path, monkeypatch, template: str, adapted: bool
):
    """The joint attention, and that of heads that read one image."""
    monkeypatch.chdir(wordings)
    attention = get_template(template).attention
    head, shown = ("scalar", 1) if attention == "alone" else ("verdict", 2)
    spec = JudgeSpec(base_model=str(checkpoint), head=head, attention=attention, template=template)
    judge = Judge.from_base(spec, "cpu")
    if adapted:
        lora(judge)
    images = [judge.processor.prepare_image(picture) for picture in pictures]
    context = int(judge.processor.template.has_context)
    trees = {
        prompt: judge.processor.tree(prompt, dict(enumerate(images)), images[:context]) for prompt in PROMPTS
    }
    groups, expected = [], []
    for n, pair in enumerate(permutations(range(len(SIZES)), 2)):
        tree = trees[PROMPTS[n % 2]]
        groups.append((tree, [pair]))
        answer = tree.answers([pair])[tree.readouts(pair)[0]]
        places = [*range(context), *pair[:shown]]
        ids, logits_V = own_reading(judge, PROMPTS[n % 2], [pictures[i] for i in places])
        assert torch.cat([segment.ids_L for segment in path(tree, answer)]).tolist() == ids
        expected.append(logits_V)
    batch = judge.processor.collate(groups)
    with reading(judge) as hidden:
        verdicts_N = judge(batch)
    found_NV = judge.model.get_output_embeddings()(hidden[0][batch.pairs_N2[:, 0]])
    expected_NV = torch.stack(expected)
    torch.testing.assert_close(found_NV, expected_NV, atol=1e-5, rtol=0)
    assert expected_NV.std(dim=0).mean() > 0.01
    if head == "verdict":
        first, second = judge.processor.layout.answers
        torch.testing.assert_close(
            verdicts_N, expected_NV[:, first] - expected_NV[:, second], atol=1e-5, rtol=0
        )


WORDS = ("yes", "a red circle, to the left of it", "no!", "1 2")


@pytest.mark.parametrize(("context", "criterion"), [(0, "how well the colours fit"), (1, "hue"), (2, "")])
@pytest.mark.parametrize("kind", ["image", "text"])
@torch.inference_mode()
def test_edits_answers_and_criteria_are_read_as_by_transformers(
    checkpoint: Path, pictures, kind: str, criterion: str, context: int
):
    for head, template in (("verdict", "fit-v1"), ("scalar", "fit-alone-v1")):
        attention = get_template(template).attention
        fields = {"head": head, "attention": attention, "template": template, "kind": kind}
        judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint), **fields), "cpu")
        processor = judge.processor
        sources = [processor.prepare_image(picture) for picture in pictures]
        contents = [(image,) for image in sources]
        if kind == "text":
            contents = [processor.prepare_text(text) for text in WORDS]
        tree = processor.tree(PROMPTS[0], dict(enumerate(contents)), sources[:context], criterion)
        pairs = [(0, 1), (3, 2)]
        expected = []
        for pair in pairs:
            places = pair[: judge.processor.template.candidates]
            shown, others = pictures[:context], {"criterion": criterion}
            if kind == "text":
                others["texts"] = [WORDS[n] for n in places]
            else:
                shown = [*shown, *(pictures[n] for n in places)]
            ids, logits_V = own_reading(judge, PROMPTS[0], shown, **others)
            answer = tree.answers([pair])[tree.readouts(pair)[0]]
            assert torch.cat([segment.ids_L for segment in path(tree, answer)]).tolist() == ids
            expected.append(logits_V)
        batch = processor.collate([(tree, pairs)])
        with reading(judge) as hidden:
            judge(batch)
        found_NV = judge.model.get_output_embeddings()(hidden[0][batch.pairs_N2[:, 0]])
        torch.testing.assert_close(found_NV, torch.stack(expected), atol=1e-5, rtol=0)
        assert (expected[0] - expected[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("attention", ["late", "joint"])
@torch.inference_mode()
def test_bfloat16_says_about_the_same(judge: Judge, pictures, attention: str):
    spec = JudgeSpec(base_model=judge.spec.base_model, attention=attention)
    verdicts = []
    for each in (Judge.from_base(spec, "cpu", dtype) for dtype in ("float32", "bfloat16")):
        images = [each.processor.prepare_image(picture) for picture in pictures]
        verdicts.append(compared(each, PROMPTS[0], images))
    assert verdicts[1].dtype == torch.float32
    torch.testing.assert_close(verdicts[1], verdicts[0], atol=0.03, rtol=0)
    assert torch.corrcoef(torch.stack(verdicts))[0, 1] > 0.9


def test_the_vision_tower_is_where_the_family_says(judge: Judge):
    tower = judge.model.get_submodule(judge.family.vision_tower)
    seen = []
    tower.register_forward_pre_hook(lambda module, args, kwargs: seen.append(module), with_kwargs=True)
    (features_VTD,) = judge.family.encode(
        judge.model, [judge.processor.prepare_image(Image.new("RGB", (32, 32)))]
    )
    assert seen == [tower]
    assert sum(parameter.numel() for parameter in tower.parameters()) > 0
    assert features_VTD.shape[-1] == judge.model.get_output_embeddings().in_features


def test_lora_finds_every_linear_layer_of_the_language_model_and_nothing_else(judge: Judge):
    decoder = judge.model.get_decoder()
    expected = {id(layer) for layer in decoder.modules() if type(layer) is torch.nn.Linear}
    assert len(expected) == 2 * 7
    add_lora(judge, rank=2, alpha=4, dropout=0.0)
    found = {id(layer.base_layer) for layer in judge.model.modules() if hasattr(layer, "lora_A")}
    assert found == expected
    trainable = {name for name, parameter in judge.backbone.named_parameters() if parameter.requires_grad}
    assert len(trainable) == 2 * len(expected)
    assert not any(judge.family.vision_tower in name for name in trainable)


@pytest.mark.parametrize("form", ["adapter", "merged", "plain"])
def test_a_bundle_scores_to_the_last_bit_as_the_judge_did(judge: Judge, groups, tmp_path: Path, form: str):
    if form != "plain":
        lora(judge)
    if form == "merged":
        judge = standalone(judge)
    before = Engine(judge).score(groups)
    write_bundle(tmp_path / "b", judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="#")
    after = Engine(load_bundle(tmp_path / "b", "cpu").judge).score(groups)
    for matrix, same in zip(before, after, strict=True):
        assert matrix.valid[~torch.eye(len(SIZES), dtype=torch.bool).numpy()].all()
        assert matrix.p.tobytes() == same.p.tobytes()
        assert matrix.order_gap.tobytes() == same.order_gap.tobytes()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attention": "joint"},
        {"ties": True},
        {"head": "scalar"},
        {"head": "embedding"},
        {"attention": "joint", "min_label_mass": 0.0},
        {"head": "scalar", "template": "shows-v1"},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())) or "verdict",
)
def test_a_training_step_of_every_head_has_finite_gradients(checkpoint: Path, pictures, fields: dict):
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint), **fields), "cpu")
    add_lora(judge, rank=2, alpha=4, dropout=0.0)
    images = [judge.processor.prepare_image(picture) for picture in pictures[:3]]
    outcomes = compared(judge.train(), PROMPTS[0], images)
    assert len(outcomes) == 6 and outcomes.isfinite().all()
    judge.loss(outcomes, torch.tensor([1.0, 0.0, 1.0, 0.0, 0.9, 0.2])).backward()
    grads = {name: p.grad for name, p in judge.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    learning = [name for name, grad in grads.items() if "lora_B" in name and grad.abs().max() > 0]
    assert len(learning) == 2 * 7
