"""What an outcome depends on and what not; `test_families` compares it with `transformers`."""

from itertools import permutations
from pathlib import Path

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.judge import ImageInput, Judge, JudgeSpec, preference_loss
from tests.prefrm.judge.comparing import batch_of, compared, prepared

PROMPT = "a red circle left of a blue square"


KINDS = {
    "late": {},
    "joint": {"attention": "joint"},
    "joint, prompt twice": {"attention": "joint", "template": "match-twice-v1"},
    "alone": {"head": "scalar"},
}


@pytest.fixture
def judge(tiny_checkpoint: Path, request: pytest.FixtureRequest) -> Judge:
    torch.manual_seed(0)
    kind = getattr(request, "param", "late")
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[kind]), "cpu")


@pytest.fixture
def images(judge: Judge, png) -> list[ImageInput]:
    sizes = [(48, 32), (32, 32), (16, 64), (48, 48)]
    return prepared(judge, [png(n, width=width, height=height) for n, (width, height) in enumerate(sizes)])


ALL = pytest.mark.parametrize("judge", KINDS, indirect=True)


@ALL
@torch.inference_mode()
def test_what_else_is_in_a_batch_changes_no_outcome(judge: Judge, images):
    """Neither other candidates of the group nor other groups, of other sizes and with the same keys."""
    trees = [
        judge.processor.tree(prompt, dict(enumerate(some)))
        for prompt, some in (("x", images[1:]), (PROMPT, images), (PROMPT * 2, images[:2]))
    ]
    pairs = [[(1, 0)], list(permutations(range(4), 2)), [(0, 1), (1, 0)]]
    together = judge(judge.processor.collate(list(zip(trees, pairs, strict=True))))
    alone = [compared(judge, PROMPT, [images[i], images[j]], [(0, 1)]) for i, j in pairs[1]]
    torch.testing.assert_close(together[1:-2], torch.cat(alone), atol=1e-6, rtol=1e-6)


@ALL
@torch.inference_mode()
def test_an_outcome_depends_on_the_prompt_both_candidates_and_their_order(judge: Judge, images):
    a, b, c, d = images
    shown = [(PROMPT, a, b), ("x", a, b), (PROMPT, c, b), (PROMPT, a, d), (PROMPT, b, a)]
    here, *others = [compared(judge, prompt, pair, [(0, 1)]).item() for prompt, *pair in shown]
    assert all(abs(here - other) > 1e-4 for other in others)


@ALL
def test_activation_checkpointing_gives_the_same_gradients(judge: Judge, images):
    """A layer that is run again attends to the same segments."""
    batch = batch_of(judge, PROMPT, images[:3])
    runs = []
    judge.model.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))

    def gradients() -> dict[str, torch.Tensor]:
        judge.zero_grad()
        judge(batch).square().sum().backward()
        return {name: p.grad for name, p in judge.named_parameters() if p.grad is not None}

    kept = gradients()
    judge.train()
    judge.model.activation_checkpointing_enable({"use_reentrant": False})
    again = gradients()
    assert len(runs) == 1 + 2
    assert again.keys() == kept.keys() and sum(grad.abs().sum() for grad in kept.values()) > 0
    for name, grad in again.items():
        torch.testing.assert_close(grad, kept[name])


@pytest.mark.parametrize("dtype", ["int8", "nope", "nn"])
def test_a_dtype_that_is_none_is_refused(judge: Judge, dtype: str):
    with pytest.raises(ConfigError, match=f"dtype must be .* received '{dtype}'"):
        Judge.from_base(judge.spec, "cpu", dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(judge: Judge, device: str):
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        Judge.from_base(judge.spec, device)


def test_a_sliding_window_is_refused(judge: Judge):
    config = judge.model.get_decoder().config
    config.layer_types = ["sliding_attention"] * len(config.layer_types)
    with pytest.raises(ConfigError, match=r"sliding window.*use_sliding_window to false"):
        Judge(judge.backbone, judge.head, judge.processor, judge.spec, judge.base)


@torch.inference_mode()
def test_each_distinct_image_is_encoded_once(judge: Judge, images):
    seen = []
    tower = judge.model.get_submodule(judge.family.vision_tower)
    handle = tower.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    judge(batch_of(judge, PROMPT, images))
    handle.remove()
    assert seen == [sum(len(image.pixels) for image in images)]


@torch.inference_mode()
def test_the_logits_of_the_vocabulary_are_never_computed(judge: Judge, images):
    calls = []
    handle = judge.model.get_output_embeddings().register_forward_hook(lambda *args: calls.append(args))
    judge(batch_of(judge, PROMPT, images))
    handle.remove()
    assert not calls


def test_a_few_steps_teach_adapter_and_head_a_preference(adapted: Judge, images):
    batch = batch_of(adapted, PROMPT, images[:2])
    target = torch.tensor([1.0, 0.0])
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    before = adapted.head.log_scale.item()
    for _ in range(50):
        loss = preference_loss(adapted.train()(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        first, second = adapted.eval()(batch).tolist()
    assert first > 1 and second < -1
    assert adapted.head.log_scale.item() != before
