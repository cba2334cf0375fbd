"""Groups packed into one row of tokens, and attention over it against one dense, masked softmax."""

import warnings
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from PIL import Image

from prefrm.judge import JudgeBatch, JudgeProcessor
from prefrm.judge.attention import Attend, attend_flex, attend_levels
from prefrm.judge.batch import pack
from tests.prefrm.judge.families import PLAIN_TEMPLATE, SHORT, build_processor, build_tokenizer

SIZES = ((48, 32), (16, 64), (16, 16), (32, 32))
HEADS, SHARED_HEADS, SIZE = 4, 2, 16
SCALE = 0.3


@pytest.fixture
def processor(kind: str) -> JudgeProcessor:
    return build_processor(SHORT[kind], tokenizer=build_tokenizer(PLAIN_TEMPLATE))


def grow(processor: JudgeProcessor, prompt: str, count: int):
    """A tree of the first images of `SIZES` by their places."""
    images = [processor.prepare_image(Image.new("RGB", size)) for size in SIZES[:count]]
    return processor.tree(prompt, dict(enumerate(images)))


@pytest.mark.parametrize(
    ("kind", "levels", "sees", "reads"),
    [
        # 0 1 the prefixes; 2 3 the images shown first; 4 5 the answers.
        ("joint", (2, 2, 2), [[], [], [0], [1], [0, 2], [1, 3]], [[4, 4], [5, 5]]),
        # 0 1 the prefixes; 2 3, 4 5 candidates; 6 7, 8 9 the suffixes needed, by slot; 10 11 the answers.
        (
            "late",
            (2, 4, 4, 2),
            [[], [], [0], [0], [1], [1], [0, 3], [0, 2], [1, 4], [1, 5], [0, 6, 7], [1, 8, 9]],
            [[10, 10], [11, 11]],
        ),
        # 0 1 the prefixes; 2 3 and 4 5 the answers.
        ("alone", (2, 4), [[], [], [0], [0], [1], [1]], [[2, 3], [4, 5]]),
    ],
)
def test_a_batch_holds_what_its_comparisons_need_level_by_level(
    processor: JudgeProcessor, levels: tuple[int, ...], sees: list[list[int]], reads: list[list[int]]
):
    """Of two groups with the same keys."""
    large, small = grow(processor, "a cat", 4), grow(processor, "x", 2)
    pairs = [(1, 0)], [(0, 1)]
    batch = pack([(large, pairs[0]), (small, pairs[1])])
    assert batch.levels == levels and len(batch) == 2
    assert [[n for n in row if n >= 0] for row in batch.sees_SE.tolist()] == sees
    ends = (batch.lengths_S.cumsum(0) - 1).tolist()
    assert [[ends.index(batch.reads_RP[n, -1]) for n in pair] for pair in batch.pairs_N2] == reads
    # The tokens are those of the segments, and the images stand in the order of theirs.
    segments = [large.prefix, small.prefix]
    assert batch.lengths_S[:2].tolist() == [len(segment) for segment in segments]
    assert batch.ids_T[: len(large.prefix)].tolist() == large.prefix.ids_L.tolist()
    last = small.answers(pairs[1])[small.readouts(pairs[1][0])[1]]
    assert batch.ids_T[-len(last) :].tolist() == last.ids_L.tolist()
    assert batch.positions_AT[:, -len(last) :].tolist() == last.positions_AL.tolist()
    tokens = sum(image.tokens for image in batch.images)
    assert tokens == (batch.ids_T == processor.layout.image_token_id).sum()
    assert len(batch.images) == len(batch.distinct_images) == 4


def dense(batch: JudgeBatch) -> Attend:
    """Every score, and -inf where a position does not attend."""
    ends = batch.lengths_S.cumsum(0).tolist()
    spans = [slice(end - length, end) for end, length in zip(ends, batch.lengths_S.tolist(), strict=True)]
    allowed_TT = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for own, seen in zip(spans, batch.sees_SE.tolist(), strict=True):
        allowed_TT[own, own] = torch.ones(own.stop - own.start, own.stop - own.start).tril().bool()
        for n in seen:
            if n >= 0:
                allowed_TT[own, spans[n]] = True

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        k, v = (x.repeat_interleave(HEADS // SHARED_HEADS, dim=1) for x in (k, v))
        scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~allowed_TT, float("-inf"))
        return (scores.softmax(dim=-1) @ v).transpose(1, 2)

    return attend


def attention(attend: Attend, tokens: int, device: str, *, gradients: bool) -> list[torch.Tensor]:
    """That of random queries, keys and values, and its gradients by them for a random cotangent."""
    torch.manual_seed(0)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, SHARED_HEADS, SHARED_HEADS)]
    inputs = [torch.randn(shape).to(device).requires_grad_(gradients) for shape in shapes]
    cotangent = torch.randn(1, tokens, HEADS, SIZE).to(device)
    found_1THD = attend(0, *inputs, SCALE)
    more = torch.autograd.grad(found_1THD, inputs, cotangent) if gradients else ()
    return [each.cpu() for each in (found_1THD, *more)]


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("make", "device"),
    [
        (attend_levels, "cpu"),
        # On a CPU, FlexAttention has no backward pass.
        (attend_flex, "cpu"),
        pytest.param(attend_flex, "cuda", marks=pytest.mark.gpu),
    ],
)
def test_attention_over_trees_is_one_masked_softmax(
    processor: JudgeProcessor, groups: int, make: Callable[[JudgeBatch], Attend], device: str
):
    """With unequal images, groups of several sizes, levels of one segment, and heads that share keys."""
    trees = [grow(processor, prompt, count) for prompt, count in (("a cat", 3), ("x", 2), ("a red kite", 4))]
    pairs = [list(permutations(range(3), 2)), [(1, 0)], [(0, 1), (3, 2), (1, 1)]]
    batch = pack(list(zip(trees, pairs, strict=True))[-groups:])
    tokens, gradients = len(batch.ids_T), (make, device) != (attend_flex, "cpu")
    with warnings.catch_warnings():
        # Without a compiler it computes every score, and the compiler's imports are full of deprecations.
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        if device == "cuda":
            warnings.simplefilter("ignore", DeprecationWarning)
        found = attention(make(batch.to(device)), tokens, device, gradients=gradients)
    wanted = attention(dense(batch), tokens, "cpu", gradients=gradients)
    assert len(found) == (4 if gradients else 1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["late"])
def test_flex_attention_has_the_precision_of_values(processor: JudgeProcessor):
    """Under autocast, rotary positions make float32 of queries and keys, and nothing of values."""
    batch = pack([(grow(processor, "a cat", 3), [(0, 1), (2, 0)])])
    q, k, v = (torch.randn(1, heads, len(batch.ids_T), SIZE) for heads in (HEADS, SHARED_HEADS, SHARED_HEADS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        found = attend_flex(batch)(0, q, k, v.bfloat16(), SCALE)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), dense(batch)(0, q, k, v, SCALE), atol=0.03, rtol=0)
