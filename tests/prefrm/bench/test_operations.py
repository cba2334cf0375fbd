"""Operations against those that torch counts while the model runs."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers.vision_utils import get_vision_window_index

from prefrm.bench.inputs import plain_inputs, plain_sequences
from prefrm.bench.methods import EngineMethod, both_orders, noise_images
from prefrm.bench.operations import group_operations, language_operations, vision_operations
from prefrm.bench.random_model import PROMPT, build_judges, side_of
from prefrm.judge import ImageInput, Judge, Tree
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


def tree(judge: Judge, image: ImageInput, k: int) -> Tree:
    return judge.processor.tree(PROMPT, dict.fromkeys(range(k), image))


def hidden(judge: Judge, tokens: int) -> int:
    """What eager attention computes of the causal mask's hidden half."""
    text = judge.model.config.text_config
    return text.num_hidden_layers * 4 * text.hidden_size * (tokens * (tokens - 1) // 2)


def test_a_prompt_costs_what_torch_counts_without_what_is_masked(judges, image):
    judge = judges["joint"]
    sequences = plain_sequences(tree(judge, image, 2), [(0, 1)])
    inputs = plain_inputs(judge.processor, sequences)
    config, tokens = judge.model.config, inputs["input_ids"].shape[1]
    images = 2 * vision_operations(config, GRID)
    expected = counted(lambda: judge.model.model(**inputs)) - images - hidden(judge, tokens)
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
    config, read = judge.model.config, tree(judge, image, 1)
    prefix = len(read.prefix)
    before = prefix + len(read.levels[1][0,])
    whole, part = (language_operations(config, n, used=0) for n in (before, prefix))
    saved = (2 * orders - k) * vision_operations(config, GRID) + orders * whole - k * (whole - part) - part
    plain, joint = (
        group_operations(judge, method, k, prompt=PROMPT, image=image) for method in ("plain", "joint")
    )
    assert plain - joint == saved > 0


def test_what_grows_with_the_pairs_is_the_answers(judges, image):
    """A group's cost is a parabola of K, of which the leading number is a pair's row; 0 of single images."""
    config, rows = judges["joint"].model.config, dict.fromkeys(("scalar", "embedding"), 0)
    for method in ("joint", "late"):
        read = tree(judges[method], image, 2)
        answer = read.answers([(0, 1)])[0, 1]
        seen = sum(len(read.shared[name]) for name in answer.sees)
        rows[method] = language_operations(config, len(answer), seen=seen)
    for method, row in rows.items():
        at = {k: group_operations(judges[method], method, k, prompt=PROMPT, image=image) for k in (4, 8, 16)}
        assert (at[16] - at[8]) / 8 - (at[8] - at[4]) / 4 == 12 * row
    assert 0 < 20 * rows["late"] < rows["joint"]


@pytest.mark.parametrize("method", ["joint", "late", "scalar"])
def test_a_group_costs_what_torch_counts_in_the_engine(method):
    judge = build_judges(TINY, 100, device=torch.device("cpu"), dtype=torch.float32)[method]
    images = noise_images(3, side_of(100))
    engine = EngineMethod(judge, images)
    image = judge.processor.prepare_image(decode(images[0]))
    read, orders = tree(judge, image, 3), both_orders(3)
    expected = group_operations(judge, method, 3, prompt=PROMPT, image=image)
    # Of kept segments the last layer computes queries; of all, what the causal mask hides is computed.
    width, layers = TINY.text_width, TINY.text_layers
    expected += sum(2 * len(segment) * width * width for segment in read.shared.values())
    for segment in (*read.shared.values(), *read.answers(orders).values()):
        expected += hidden(judge, len(segment)) * (layers - 1) // layers
    assert counted(lambda: engine.score(3)) == pytest.approx(expected, rel=0.01)


def test_more_layers_cost_more(judges, image):
    shape = replace(TINY, text_layers=TINY.text_layers + 1)
    deeper = build_judges(shape, 100, device=torch.device("cpu"), dtype=torch.float32)["joint"]
    less, more = (
        group_operations(judge, "joint", 3, prompt=PROMPT, image=image) for judge in (judges["joint"], deeper)
    )
    assert more > less
