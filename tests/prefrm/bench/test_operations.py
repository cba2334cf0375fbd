"""Operations against those that torch counts while the model runs."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers.vision_utils import get_vision_window_index

from prefrm.bench.methods import METHODS, EngineMethod, both_orders, noise_images
from prefrm.bench.operations import group_operations, language_operations, vision_operations
from prefrm.bench.random_model import PROMPT, build_judges, side_of
from prefrm.judge import ImageInput, Judge, path
from prefrm.media import decode
from tests.prefrm.bench.shapes import TINY

# 10 x 6 tokens, so that a window of 4 x 4 is cut off on both sides.
GRID = (1, 20, 12)


@pytest.fixture(scope="module")
def judges() -> dict[str, Judge]:
    judges = build_judges(TINY, 100, device=torch.device("cpu"), dtype=torch.float32)
    # Only what is spelled out as products is counted.
    judges["joint"].model.set_attn_implementation("eager")
    return judges


@pytest.fixture(scope="module")
def image(judges) -> ImageInput:
    config = judges["joint"].model.config
    numbers = config.vision_config.in_channels * 2 * config.vision_config.patch_size**2
    patches = GRID[1] * GRID[2]
    return ImageInput(
        pixels=torch.zeros(patches, numbers), grid=GRID, ids=[config.image_token_id] * (patches // 4)
    )


def attention_operations(queries, keys, values, *args, out_shape=None, **kwargs) -> int:
    """Of torch's kernel for a CPU, which its counter does not know."""
    return sdpa_flop_count(queries, keys, values)


def counted(call) -> int:
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_operations}
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=attention) as counter:
        call()
    total: int = counter.get_total_flops()
    return total


def test_an_image_costs_what_torch_counts(judges, image):
    judge = judges["joint"]
    expected = counted(lambda: judge.encode([image]))
    assert vision_operations(judge.model.config, GRID) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("grid", [GRID, (1, 16, 16), (2, 4, 26)])
def test_windows_are_those_of_the_vision_tower(judges, grid):
    """The same model with full attention everywhere differs by the pairs of patches outside of windows."""
    vision = judges["joint"].model.config.vision_config
    _, ends = get_vision_window_index(
        torch.tensor([grid]), vision.spatial_merge_size, vision.window_size, vision.patch_size
    )
    in_windows = int(ends.diff().square().sum())
    everywhere = grid[0] * (grid[1] * grid[2]) ** 2
    windowed = [
        vision_operations(SimpleNamespace(vision_config=changed(vision, full)), grid)
        for full in ([], [0, 1, 2])
    ]
    # Two products, an addition and a multiplication each, in every layer.
    outside = 4 * vision.hidden_size * vision.depth * (everywhere - in_windows)
    assert windowed[1] - windowed[0] == outside > 0


def changed(vision, full: list[int]):
    config = copy.deepcopy(vision)
    config.fullatt_block_indexes = full
    return config


def hidden(judge: Judge, tokens: int) -> int:
    """What eager attention computes of the causal mask's hidden half."""
    text = judge.model.config.text_config
    return text.num_hidden_layers * 4 * text.hidden_size * (tokens * (tokens - 1) // 2)


def test_a_prompt_costs_what_torch_counts_without_what_is_masked(judges, image):
    judge = judges["joint"]
    tree = judge.processor.tree(PROMPT, {0: image, 1: image})
    (answer,) = tree.answers([(0, 1)]).values()
    ids = torch.cat([segment.ids_L for segment in path(tree, answer)])
    tokens = len(ids)
    with torch.inference_mode():
        embeds = judge.model.get_input_embeddings()(ids[None])
    expected = counted(lambda: judge.model.model.language_model(inputs_embeds=embeds)) - hidden(judge, tokens)
    config = judge.model.config
    assert language_operations(config, tokens, used=tokens) == pytest.approx(expected, rel=0.02)


def test_the_last_layer_is_counted_as_far_as_it_is_used(judges):
    config = judges["joint"].model.config
    whole, one, none = (language_operations(config, 50, used=used) for used in (50, 1, 0))
    text = config.text_config
    head = text.hidden_size // text.num_attention_heads
    keys = 2 * 50 * 2 * text.hidden_size * head * text.num_key_value_heads
    layer = whole // text.num_hidden_layers
    assert none == whole - layer + keys
    assert none < one < none + layer // 20


def test_a_sequence_in_parts_costs_what_it_costs_in_one(judges):
    """However a causal sequence is cut, each position attends to as many."""
    config = judges["joint"].model.config
    whole = language_operations(config, 90, used=90)
    parts = language_operations(config, 40, used=40) + language_operations(config, 50, seen=40, used=50)
    assert parts == whole


@pytest.mark.parametrize("k", [2, 5])
def test_joint_saves_what_plain_reads_again(judges, image, k):
    judge, orders = judges["joint"], len(both_orders(k))
    config, tree = judge.model.config, judge.processor.tree(PROMPT, {0: image})
    first = len(tree.prefix) + len(tree.levels[1][0,])
    block, prefix = (language_operations(config, n, used=0) for n in (first, len(tree.prefix)))
    saved = (
        (2 * orders - k) * vision_operations(config, GRID) + orders * block - k * (block - prefix) - prefix
    )
    plain, joint = (
        group_operations(judge, method, k, prompt=PROMPT, image=image) for method in ("plain", "joint")
    )
    assert plain - joint == saved > 0


def test_what_grows_with_the_pairs_is_the_answers(judges, image):
    """A group's cost is a parabola of K, of which the leading number is an answer's; 0 of single images."""
    answers = {}
    for method in METHODS[1:]:
        judge = judges[method]
        tree = judge.processor.tree(PROMPT, {0: image, 1: image})
        (answer, *_) = tree.answers([(0, 1)]).values()
        seen = sum(len(tree.shared[name]) for name in answer.sees)
        answers[method] = language_operations(judge.model.config, len(answer), seen=seen)
        at = {k: group_operations(judge, method, k, prompt=PROMPT, image=image) for k in (4, 8, 16)}
        leading = answers[method] if judge.spec.is_pairwise else 0
        assert (at[16] - at[8]) / 8 - (at[8] - at[4]) / 4 == 12 * leading
    assert 0 < answers["late"] < answers["joint"] / 20


@pytest.mark.parametrize("method", ["joint", "late", "scalar"])
def test_a_group_costs_what_torch_counts_in_the_engine(method):
    judge = build_judges(TINY, 100, device=torch.device("cpu"), dtype=torch.float32)[method]
    images, orders = noise_images(3, side_of(100)), both_orders(3)
    engine = EngineMethod(judge, images)
    image = judge.processor.prepare_image(decode(images[0]))
    tree = judge.processor.tree(PROMPT, dict.fromkeys(range(3), image))
    expected = group_operations(judge, method, 3, prompt=PROMPT, image=image)
    # Of kept segments the last layer computes queries; of all, what the causal mask hides is computed.
    width, layers = TINY.text_width, TINY.text_layers
    expected += sum(2 * len(segment) * width * width for segment in tree.shared.values())
    for segment in (*tree.shared.values(), *tree.answers(orders).values()):
        expected += hidden(judge, len(segment)) * (layers - 1) // layers
    assert counted(lambda: engine.score(3)) == pytest.approx(expected, rel=0.01)


def test_more_layers_cost_more(judges, image):
    shape = replace(TINY, text_layers=TINY.text_layers + 1)
    deeper = build_judges(shape, 100, device=torch.device("cpu"), dtype=torch.float32)["joint"]
    less, more = (
        group_operations(judge, "joint", 3, prompt=PROMPT, image=image) for judge in (judges["joint"], deeper)
    )
    assert more > less
