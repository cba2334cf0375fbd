"""The isolated attention: what each slot sees, where it stands, and that a group shares what pairs repeat."""

import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from prefrm.errors import RecordError
from prefrm.judge import ImageInput, Judge, JudgeSpec
from prefrm.media import decode
from tests.prefrm.judge.families import TINY, save_checkpoint

PROMPT = "a red circle left of a blue square"


@pytest.fixture(scope="module", params=sorted(TINY))
def checkpoint(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(params=["match-v1", "match-twice-v1"])
def judge(checkpoint: Path, request) -> Judge:
    spec = JudgeSpec(base_model=str(checkpoint), template=request.param, attention="isolated")
    return Judge.from_base(spec, "cpu")


@pytest.fixture
def images(judge: Judge, png) -> list[ImageInput]:
    sizes = [(48, 32), (32, 32), (16, 64), (48, 32)]
    return [
        judge.processor.prepare_image(decode(png(seed, width=width, height=height)))
        for seed, (width, height) in enumerate(sizes)
    ]


def keys_and_values(judge: Judge, *shown: ImageInput) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every layer [layers * 2, L, D], and the segment of each position."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: seen.append(out[0]))
        for name, module in judge.model.named_modules()
        if re.fullmatch(judge.family.lora_targets, name) and name.endswith(("k_proj", "v_proj"))
    ]
    sequence = judge.processor.prepare_pair(PROMPT, *shown)
    judge(judge.processor.collate([sequence]))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 4
    return torch.stack(seen), sequence.segment_L


@torch.inference_mode()
def test_changing_one_image_changes_no_key_or_value_of_the_other_slot(judge: Judge, images):
    a, b, _, other = images
    before, segment = keys_and_values(judge, a, b)
    after, _ = keys_and_values(judge, other, b)
    for kept in (0, 2):
        assert torch.equal(before[:, segment == kept], after[:, segment == kept])
    assert not torch.equal(before[:, segment == 1], after[:, segment == 1])
    before, segment = keys_and_values(judge, b, a)
    after, _ = keys_and_values(judge, b, other)
    for kept in (0, 1):
        assert torch.equal(before[:, segment == kept], after[:, segment == kept])
    assert not torch.equal(before[:, segment == 2], after[:, segment == 2])


@torch.inference_mode()
def test_the_other_images_size_moves_nothing(judge: Judge, images):
    wide, b, tall, _ = images
    first, second = (judge.processor.prepare_pair(PROMPT, shown, b) for shown in (wide, tall))
    assert len(first) != len(second)
    for segment in (0, 2, 3):
        kept = [s.positions_AL[:, s.segment_L == segment] for s in (first, second)]
        assert torch.equal(*kept)


@torch.inference_mode()
def test_slots_start_a_stride_apart(judge: Judge, images):
    sequence = judge.processor.prepare_pair(PROMPT, images[0], images[1])
    starts = [int(sequence.positions_AL[:, sequence.segment_L == n].min()) for n in range(4)]
    prefix = int((sequence.segment_L == 0).sum())
    assert starts == [0, prefix, prefix + judge.processor.stride, prefix + 2 * judge.processor.stride]
    ends = [int(sequence.positions_AL[:, sequence.segment_L == n].max()) for n in (1, 2)]
    assert ends[0] < starts[2] and ends[1] < starts[3]


@torch.inference_mode()
def test_a_verdict_is_what_the_models_own_cache_gives(judge: Judge, images):
    """Prefix and slots are encoded one after the other by `transformers`, each on a copy of the prefix's
    cache; the readout then reads the caches joined together."""
    a, b = images[:2]
    sequence = judge.processor.prepare_pair(PROMPT, a, b)
    features = judge.encode([a, b])
    embeds = judge.model.get_input_embeddings()(sequence.ids_L[None])
    where = sequence.ids_L == judge.processor.layout.image_token_id
    features_VND = torch.cat([features[a], features[b]], dim=1)
    embeds[0, where] = features_VND[0]

    def deeper(here: torch.Tensor) -> dict[str, Any]:
        """What of the features a family adds to deeper layers, at these positions."""
        if len(features_VND) == 1:
            return {}
        return {
            "visual_pos_masks": where[None, here],
            "deepstack_visual_embeds": list(features_VND[1:, here[where]]),
        }

    def run(segment: int, past: list[tuple[torch.Tensor, torch.Tensor]]):
        here = sequence.segment_L == segment
        cache = DynamicCache()
        for layer, (key, value) in enumerate(past):
            cache.update(key.clone(), value.clone(), layer)
        seen = past[0][0].shape[2] if past else 0
        positions_ABL = sequence.positions_AL[:, None, here]
        out = judge.model.get_decoder()(
            inputs_embeds=embeds[:, here],
            position_ids=positions_ABL if len(positions_ABL) > 1 else positions_ABL[0],
            attention_mask=torch.ones(1, seen + int(here.sum()), dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            **deeper(here),
        )
        grown = [(layer.keys[:, :, seen:], layer.values[:, :, seen:]) for layer in cache.layers]
        return out.last_hidden_state, grown

    def joined(*parts):
        layers = zip(*parts, strict=True)
        return [tuple(torch.cat(pair, dim=2) for pair in zip(*layer, strict=True)) for layer in layers]

    _, prefix = run(0, [])
    _, one = run(1, prefix)
    _, two = run(2, prefix)
    hidden, _ = run(3, joined(prefix, one, two))
    rows = judge.model.get_output_embeddings().weight[list(judge.processor.layout.answers)]
    expected = judge.head.read(hidden[:, -1], rows)
    assert abs(expected.item()) > 1e-3
    torch.testing.assert_close(judge(judge.processor.collate([sequence])), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_one_pass_over_a_group_gives_every_pairs_verdict(judge: Judge, images):
    pairs = list(permutations(range(4), 2))
    group = judge.processor.prepare_group(PROMPT, images, pairs)
    assert len(group.sequences) == 1
    assert len(group.sequences[0].images) == 8
    alone = [judge.processor.prepare_pair(PROMPT, images[i], images[j]) for i, j in pairs]
    together, apart = judge(judge.processor.collate_groups([group])), judge(judge.processor.collate(alone))
    assert apart.std() > 0.01
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_groups_of_unlike_sizes_share_a_batch(judge: Judge, images):
    small = judge.processor.prepare_group("x", images[:2], [(1, 0)])
    large = judge.processor.prepare_group(PROMPT, images, [(0, 1), (2, 3), (3, 1)])
    together = judge(judge.processor.collate_groups([small, large, small]))
    apart = [judge(judge.processor.collate_groups([group])) for group in (small, large, small)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_isolated_and_joint_are_different_judges(judge: Judge, images):
    joint = Judge.from_base(replace(judge.spec, attention="joint"), "cpu")
    verdicts = []
    for one in (judge, joint):
        # Random weights have faint opinions, and slots that stand close together faint differences.
        one.head.log_scale.add_(3.0)
        verdicts.append(one(one.processor.collate([one.processor.prepare_pair(PROMPT, *images[:2])])))
    assert abs(verdicts[0] - verdicts[1]).item() > 1e-4


def test_a_group_pass_has_gradients_for_every_verdict(judge: Judge, images):
    pairs = list(permutations(range(3), 2))
    batch = judge.processor.collate_groups([judge.processor.prepare_group(PROMPT, images[:3], pairs)])
    outcomes = judge(batch)
    assert outcomes.shape == (6,)
    judge.loss(outcomes, torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5, 0.5])).backward()
    grads = [p.grad for p in judge.parameters() if p.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)


def test_what_reaches_beyond_the_models_positions_is_refused(judge: Judge, images):
    judge.processor.max_length = 20 + 2 * judge.processor.stride
    with pytest.raises(RecordError, match=r"the comparison has .* tokens and the model reads"):
        judge.processor.prepare_pair(PROMPT * 3, *images[:2])


def test_an_image_that_reaches_into_the_next_slot_is_refused(judge: Judge, images):
    judge.processor.stride = images[0].tokens
    with pytest.raises(RecordError, match=r"takes \d+ positions and this judge keeps"):
        judge.processor.prepare_pair(PROMPT, *images[:2])
