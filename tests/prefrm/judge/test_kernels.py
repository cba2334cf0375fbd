"""Attention kernels: which one is chosen, and that each computes attention and its log-sum-exp."""

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from prefrm.engine.attention import padding
from prefrm.judge.kernels import KERNELS, MASK_ALIGNMENT, attend, choose_kernel

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
VOLTA, TURING, AMPERE, HOPPER = (7, 0), (7, 5), (8, 0), (9, 0)
SCALE = 0.3
LENGTHS = (37, 50)

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(queries: int, *, dtype: torch.dtype, device: str = "cpu", head: int = 64) -> Tensors:
    """Queries, and keys and values of two blocks, the first of which is padded."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(LENGTHS), 3, length, head) for length in (queries, max(LENGTHS), max(LENGTHS))]
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (dict(device="cpu", dtype=SINGLE, head=64), "cpu"),
        (dict(device="cpu", dtype=BRAIN, head=5, masked=True), "cpu"),
        (dict(device="cuda", dtype=BRAIN, head=128, capability=HOPPER), "flash"),
        (dict(device="cuda", dtype=HALF, head=80, capability=AMPERE), "flash"),
        (dict(device="cuda", dtype=BRAIN, head=128, capability=HOPPER, masked=True), "efficient"),
        (dict(device="cuda", dtype=BRAIN, head=264, capability=HOPPER), "efficient"),
        (dict(device="cuda", dtype=SINGLE, head=128, capability=HOPPER), "efficient"),
        (dict(device="cuda", dtype=HALF, head=64, capability=TURING), "efficient"),
        (dict(device="cuda", dtype=BRAIN, head=64, capability=VOLTA), "portable"),
        (dict(device="cuda", dtype=HALF, head=20, capability=HOPPER), "portable"),
        (dict(device="cuda", dtype=torch.float64, head=64, capability=HOPPER), "portable"),
        # ROCm, whose devices have no compute capability.
        (dict(device="cuda", dtype=HALF, head=64), "portable"),
        (dict(device="mps", dtype=HALF, head=64), "portable"),
    ],
)
def test_the_fastest_kernel_for_a_call(call: dict[str, Any], name: str):
    assert choose_kernel(**call) == name


def test_without_an_operator_another_kernel_is_chosen(monkeypatch):
    """These operators are not public, and another version of torch may lack them."""
    monkeypatch.setattr(torch.ops, "aten", object())
    choose_kernel.cache_clear()
    try:
        assert choose_kernel("cpu", SINGLE, 64) == "portable"
    finally:
        choose_kernel.cache_clear()


def check(name: str, dtype: torch.dtype, device: str, *, queries: int, masked: bool, head: int = 64) -> None:
    """A kernel against one attention by torch in float32, and a log-sum-exp of all scores."""
    q, k, v = tensors(queries, dtype=dtype, device=device, head=head)
    causal = not masked and queries == max(LENGTHS)
    mask = padding(LENGTHS, k.shape[2], k)[..., : k.shape[2]] if masked else None
    found, lse = KERNELS[name](q, k, v, SCALE, mask, causal)
    q, k, v = q.float(), k.float(), v.float()
    mask = None if mask is None else mask.float()
    wanted = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=SCALE)
    scores = q @ k.transpose(-1, -2) * SCALE
    scores = scores if mask is None else scores + mask
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
    tolerance = dict.fromkeys(("atol", "rtol"), 1e-4 if dtype == SINGLE else 0.02)
    assert found.dtype == dtype and lse.dtype == SINGLE
    torch.testing.assert_close(found.float(), wanted, **tolerance)
    torch.testing.assert_close(lse, scores.logsumexp(-1), **tolerance)


@pytest.mark.parametrize("name", ["cpu", "portable"])
@pytest.mark.parametrize("dtype", [SINGLE, BRAIN])
@pytest.mark.parametrize(("queries", "masked"), [(33, False), (33, True), (max(LENGTHS), False)])
def test_kernels_of_a_cpu_are_attention(name: str, dtype: torch.dtype, queries: int, masked: bool):
    check(name, dtype, "cpu", queries=queries, masked=masked)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash", "efficient", "portable"])
@pytest.mark.parametrize("dtype", [SINGLE, HALF, BRAIN])
@pytest.mark.parametrize("head", [64, 72, 128])
@pytest.mark.parametrize(
    ("queries", "masked"), [(1, False), (33, False), (33, True), (1, True), (max(LENGTHS), False)]
)
def test_kernels_of_cuda_are_attention(name: str, dtype: torch.dtype, head: int, queries: int, masked: bool):
    if name == "flash" and (masked or dtype == SINGLE):
        pytest.skip("flash takes half precision and no mask")
    check(name, dtype, "cuda", queries=queries, masked=masked, head=head)


@pytest.mark.parametrize("name", ["flash", "efficient"])
def test_shapes_of_cuda_kernels(name: str):
    """By their operators' own rules for shapes, without a GPU."""
    q, k, v = (x.to("meta") for x in tensors(33, dtype=BRAIN))
    mask = padding(LENGTHS, k.shape[2], k)[..., : k.shape[2]] if name == "efficient" else None
    found, lse = KERNELS[name](q, k, v, SCALE, mask, False)
    assert found.shape == q.shape and found.dtype == BRAIN
    assert lse.shape == q.shape[:3] and lse.dtype == SINGLE


@pytest.mark.parametrize(("length", "width"), [(1, 16), (15, 16), (16, 16), (50, 64)])
def test_the_rows_of_a_mask_are_aligned(length: int, width: int):
    """The efficient kernel refuses others: it loads their numbers 16 bytes at a time."""
    mask = padding([length, 1], length, torch.zeros(0, dtype=HALF), always=True)
    assert mask is not None and mask.shape == (2, 1, 1, width) and mask.is_contiguous()
    assert mask.dtype == HALF and width % MASK_ALIGNMENT == 0
    hidden = (mask[:, 0, 0] != 0).tolist()
    assert hidden == [[n >= real for n in range(width)] for real in (length, 1)]
    assert padding([length, length], length, torch.zeros(0)) is None


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_large_scores_of_half_precision_neither_overflow_nor_lose_their_digits(dtype: torch.dtype):
    q, k, v = (factor * torch.randn(1, 2, 40, 64) for factor in (50, 50, 1))
    q, k, v = (x.to(dtype) for x in (q, k, v))
    wanted, _ = attend(q.float(), k.float(), v.float(), scale=SCALE)
    found, _ = KERNELS["portable"](q, k, v, SCALE, None, False)
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0)
