"""Every model family, on a tiny checkpoint of its own: against `transformers`, and through all of prefrm.

The reference is the family's own processor and forward pass, one call for each pair: its own tokens, its own
positions and its own merging of image features.
"""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.processing_utils import ProcessorMixin

from prefrm.bundle import load_bundle, write_bundle
from prefrm.engine import Engine
from prefrm.judge import FAMILIES, Judge, JudgeSpec
from prefrm.media import decode
from prefrm.train.adapters import add_lora
from prefrm.winmatrix import Group
from tests.prefrm.judge.families import TINY, save_checkpoint

PROMPTS = ("a red circle left of a blue square", "x")
SIZES = ((48, 32), (32, 32), (16, 64), (100, 70))
# With what else the published `processor_config.json` says.
PROCESSORS = {
    "idefics3": (Idefics3Processor, {"image_seq_len": 4}),
    "smolvlm": (SmolVLMProcessor, {"image_seq_len": 4, "video_processor": None}),
    "qwen2_vl": (Qwen2VLProcessor, {"video_processor": None}),
    "qwen2_5_vl": (Qwen2_5_VLProcessor, {"video_processor": None}),
    "qwen3_vl": (Qwen3VLProcessor, {"video_processor": None}),
    "llava_onevision": (
        LlavaOnevisionProcessor,
        {
            "num_image_tokens": 16,
            "vision_aspect_ratio": "anyres_max_3",
            "vision_feature_select_strategy": "full",
        },
    ),
}


@pytest.fixture(scope="module", params=sorted(TINY))
def checkpoint(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


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
    return [Group(prompt=prompt, images=tuple(encoded)) for prompt in PROMPTS]


def lora(judge: Judge) -> Judge:
    """The judge with an adapter that changes every verdict."""
    torch.manual_seed(1)
    add_lora(judge, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():
        for name, parameter in judge.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return judge.eval()


def own_processor(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family's processor of `transformers`, without what only videos need."""
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *args: None)
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    parts = {"image_processor": judge.processor.image_processor, "tokenizer": judge.processor.tokenizer}
    kind, settings = PROCESSORS[judge.model.config.model_type]
    return kind(**parts, **settings)


def own_inputs(judge: Judge, processor: Any, prompt: str, shown: list[Image.Image]) -> Any:
    """What the family's own processor makes of a comparison."""
    (message,) = judge.processor.template.messages(prompt)
    if judge.family.images_in_text:
        text = "".join(item.get("text", "<image>") for item in message["content"])
        message["content"] = [{"type": "text", "text": text}]
    text = judge.processor.tokenizer.apply_chat_template(
        [message], tokenize=False, add_generation_prompt=True
    )
    return processor(text=[text], images=shown, return_tensors="pt")


def test_every_family_has_a_checkpoint_here():
    assert set(TINY) == set(FAMILIES) == set(PROCESSORS)


@pytest.mark.parametrize(("template", "adapted"), [("match-v1", False), ("match-twice-v1", True)])
@torch.inference_mode()
def test_the_joint_layout_equals_the_forward_pass_of_transformers(
    checkpoint: Path, pictures, monkeypatch, template: str, adapted: bool
):
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint), template=template), "cpu")
    if adapted:
        lora(judge)
    processor = own_processor(judge, monkeypatch)
    images = [judge.processor.prepare_image(picture) for picture in pictures]
    first, second = judge.processor.layout.answers
    sequences, expected = [], []
    for n, (i, j) in enumerate(permutations(range(len(SIZES)), 2)):
        prompt = PROMPTS[n % 2]
        sequences.append(judge.processor.prepare_pair(prompt, images[i], images[j]))
        inputs = own_inputs(judge, processor, prompt, [pictures[i], pictures[j]])
        assert inputs["input_ids"][0].tolist() == sequences[-1].ids_L.tolist()
        logits_V = judge.model(**inputs).logits[0, -1]
        expected.append(logits_V[first] - logits_V[second])
    expected_N = torch.stack(expected)
    assert expected_N.std() > 0.01
    verdicts_N = judge(judge.processor.collate(sequences))
    torch.testing.assert_close(verdicts_N, expected_N, atol=1e-5, rtol=0)
    swapped = [judge.processor.prepare_pair(PROMPTS[0], images[i], images[j]) for i, j in ((0, 1), (1, 0))]
    there, back = judge(judge.processor.collate(swapped)).tolist()
    assert abs(there - back) > 1e-3


@torch.inference_mode()
def test_no_image_takes_more_positions_than_a_slot_has(judge: Judge):
    before = max(len(judge.processor.layout.first), len(judge.processor.layout.second))
    for width, height in ((16, 16), (400, 400), (400, 20), (20, 400), (63, 127), (3, 401)):
        image = judge.processor.prepare_image(Image.new("RGB", (width, height)))
        positions = judge.family.positions(judge.model.config, [before, image, 1])
        assert int(positions.max()) <= judge.processor.stride


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


@pytest.mark.parametrize("merge", [False, True])
def test_a_bundle_scores_to_the_last_bit_as_the_judge_did(judge: Judge, groups, tmp_path: Path, merge: bool):
    if not merge:
        lora(judge)
    before = Engine(judge).score(groups)
    write_bundle(
        tmp_path / "b", judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="#", merge=merge
    )
    after = Engine(load_bundle(tmp_path / "b", "cpu").judge).score(groups)
    for matrix, same in zip(before, after, strict=True):
        assert matrix.valid[~torch.eye(len(SIZES), dtype=torch.bool).numpy()].all()
        assert matrix.p.tobytes() == same.p.tobytes()
        assert matrix.order_gap.tobytes() == same.order_gap.tobytes()


@pytest.mark.parametrize(
    "fields",
    [{}, {"attention": "isolated"}, {"ties": True}, {"head": "scalar"}, {"head": "embedding"}],
    ids=lambda fields: "-".join(map(str, fields.values())) or "verdict",
)
def test_a_training_step_of_every_head_has_finite_gradients(checkpoint: Path, pictures, fields: dict):
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint), **fields), "cpu")
    add_lora(judge, rank=2, alpha=4, dropout=0.0)
    images = [judge.processor.prepare_image(picture) for picture in pictures[:3]]
    pairs = list(permutations(range(3), 2))
    batch = judge.processor.collate_groups([judge.processor.prepare_group(PROMPTS[0], images, pairs)])
    outcomes = judge.train()(batch)
    assert len(outcomes) == 6 and outcomes.isfinite().all()
    judge.loss(outcomes, torch.tensor([1.0, 0.0, 1.0, 0.0, 0.9, 0.2])).backward()
    grads = {name: p.grad for name, p in judge.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    learning = [name for name, grad in grads.items() if "lora_B" in name and grad.abs().max() > 0]
    assert len(learning) == 2 * 7
