"""What must not change a verdict; that it is the one of `transformers`, `test_families` shows."""

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.judge import ImageInput, Judge, JudgeBatch, JudgeSpec, verdict_cross_entropy
from prefrm.media import decode
from prefrm.prompts import TEMPLATES

PROMPT = "a red circle left of a blue square"


@pytest.fixture(params=[t.id for t in TEMPLATES.values() if t.images == 2 and not t.ties])
def judge(tiny_checkpoint, request) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), template=request.param), "cpu")


@pytest.fixture
def images(judge: Judge, png) -> list[ImageInput]:
    sizes = [(48, 32), (32, 32), (16, 64)]
    return [
        judge.processor.prepare_image(decode(png(seed, width=width, height=height)))
        for seed, (width, height) in enumerate(sizes)
    ]


def collate(judge: Judge, images: list[ImageInput], prompts: list[str]) -> JudgeBatch:
    ordered = [(a, b) for a in images for b in images if a is not b]
    return judge.processor.collate(
        [judge.processor.prepare_pair(prompts[n % len(prompts)], a, b) for n, (a, b) in enumerate(ordered)]
    )


@torch.inference_mode()
def test_padding_changes_no_verdict(judge: Judge, images):
    batch = collate(judge, images, [PROMPT, "x"])
    alone = [
        judge(judge.processor.collate([judge.processor.prepare_pair([PROMPT, "x"][n % 2], *pair)]))
        for n, pair in enumerate(batch.images)
    ]
    torch.testing.assert_close(judge(batch), torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["int8", "nope", "nn"])
def test_a_dtype_that_is_none_is_refused(judge: Judge, dtype: str):
    with pytest.raises(ConfigError, match=f"dtype must be .* received '{dtype}'"):
        Judge.from_base(judge.spec, "cpu", dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(judge: Judge, device: str):
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        Judge.from_base(judge.spec, device)


@torch.inference_mode()
def test_prompt_and_order_matter_and_repetition_does_not(judge: Judge, images):
    pair = judge.processor.prepare_pair
    a, b = images[:2]
    batch = judge.processor.collate([pair(PROMPT, a, b), pair(PROMPT, b, a), pair("x", a, b)])
    here, swapped, other = judge(batch).tolist()
    assert here != swapped and here != other
    assert torch.equal(judge(batch), judge(batch))


@torch.inference_mode()
def test_each_distinct_image_is_encoded_once(judge: Judge, images):
    seen = []
    tower = judge.model.get_submodule(judge.family.vision_tower)
    handle = tower.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    judge(collate(judge, images, [PROMPT]))
    handle.remove()
    assert seen == [sum(len(image.pixels) for image in images)]


@torch.inference_mode()
def test_the_logits_of_the_vocabulary_are_never_computed(judge: Judge, images):
    calls = []
    handle = judge.model.get_output_embeddings().register_forward_hook(lambda *args: calls.append(args))
    judge(collate(judge, images, [PROMPT]))
    handle.remove()
    assert not calls


def test_a_few_steps_teach_adapter_and_head_a_preference(adapted: Judge, images):
    batch = collate(adapted, images[:2], [PROMPT])
    target = torch.tensor([1.0, 0.0])
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    before = adapted.head.log_scale.item()
    for _ in range(60):
        loss = verdict_cross_entropy(adapted.train()(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        first, second = adapted.eval()(batch).tolist()
    assert first > 1 and second < -1
    assert adapted.head.log_scale.item() != before
