"""Attention kernels that also return the log-sum-exp of the scores, and the choice among them.

Parts of an attention are merged by their log-sum-exp, which torch's public function does not return. So the
fused kernels are called as ATen operators, as torch's own context parallelism does:

cpu         FlashAttention of torch on a CPU; with a mask
flash       FlashAttention-2 (arXiv 2307.08691): half precision, no mask
efficient   memory-efficient attention (arXiv 2112.05682) by CUTLASS: float32 too, with a mask
portable    matrix products and a softmax in float32: any device, with a mask

For inference: no gradient flows through the log-sum-exp.

Shapes: G blocks, H heads, M queries, L keys, D numbers of a head.
"""

from collections.abc import Callable, Mapping
from functools import cache

import torch

__all__ = ["KERNELS", "MASK_ALIGNMENT", "attend", "choose_kernel", "kernel_for"]

MASK_ALIGNMENT = 16
"""Elements to whose multiple the rows of a mask are padded: the efficient kernel loads whole vectors."""

HALF = (torch.float16, torch.bfloat16)
# Compute capabilities.
MAXWELL, AMPERE = (5, 0), (8, 0)
# CUDA kernels load vectors of 16 bytes: eight numbers of half precision.
VECTOR = 8
MOST_OF_FLASH = 256
"""The largest D of FlashAttention."""

Attention = tuple[torch.Tensor, torch.Tensor]


def _cpu(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None, causal: bool
) -> Attention:
    found, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=mask, scale=scale
    )
    return found, lse


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: None, causal: bool
) -> Attention:
    found, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, scale=scale)
    return found, lse


def _efficient(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None, causal: bool
) -> Attention:
    # The operator does not broadcast. An expanded dimension has stride 0, which takes no memory.
    bias = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])
    found, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, 0.0, causal, scale=scale
    )
    # The operator pads it with infinity to a multiple of 32 queries.
    return found, lse[..., : q.shape[2]]


def _portable(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None, causal: bool
) -> Attention:
    # Scores of half precision may be too large for it, and are too coarse.
    scores = (q.float() * scale) @ k.float().transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


KERNELS: Mapping[str, Callable[..., Attention]] = {
    "cpu": _cpu,
    "flash": _flash,
    "efficient": _efficient,
    "portable": _portable,
}
"""Each takes the arguments of `attend` in order of q, k, v, scale, mask, causal, and returns the same."""
OPERATORS = {
    "cpu": "_scaled_dot_product_flash_attention_for_cpu",
    "flash": "_scaled_dot_product_flash_attention",
    "efficient": "_scaled_dot_product_efficient_attention",
}


def kernel_for(q: torch.Tensor, mask: torch.Tensor | None = None) -> str:
    """The name of the fastest kernel for these queries and this mask."""
    # No fused kernel was tried on ROCm, whose devices are called "cuda" too.
    is_nvidia = q.device.type == "cuda" and torch.version.hip is None
    capability = torch.cuda.get_device_capability(q.device) if is_nvidia else (0, 0)
    return choose_kernel(q.device.type, q.dtype, q.shape[-1], mask is not None, capability)


@cache
def choose_kernel(
    device: str, dtype: torch.dtype, head: int, masked: bool = False, capability: tuple[int, int] = (0, 0)
) -> str:
    """The name of the fastest kernel, in this version of torch.

    Args:
        device: its type, such as "cuda".
        dtype: of queries, keys and values.
        head: D.
        masked: whether a mask is added to the scores.
        capability: the compute capability of an NVIDIA GPU, (0, 0) of every other device.
    """
    aligned = head % VECTOR == 0
    oldest = AMPERE if dtype == torch.bfloat16 else MAXWELL
    computes = {
        "cpu": device == "cpu",
        "flash": (
            capability >= AMPERE and dtype in HALF and aligned and head <= MOST_OF_FLASH and not masked
        ),
        "efficient": capability >= oldest and dtype in (torch.float32, *HALF) and aligned,
    }
    # These operators are not public.
    there = (name for name, operator in OPERATORS.items() if hasattr(torch.ops.aten, operator))
    return next((name for name in there if computes[name]), "portable")


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> Attention:
    """Attention of queries to keys and values, by the fastest kernel.

    Args:
        q: [G, H, M, D].
        k: [G, H, L, D].
        v: [G, H, L, D].
        scale: of the scores.
        mask: added to the scores, [G, 1, 1, W] or [G, 1, M, W], of the type of `q`, W being L, rounded up to
            a multiple of `MASK_ALIGNMENT`. It leaves at least one key to each query.
        causal: query m sees keys up to m, and M = L.

    Returns:
        The values found [G, H, M, D], and the log-sum-exp of the scores, float32 [G, H, M].
    """
    kernel = KERNELS[kernel_for(q, mask)]
    return kernel(q, k, v, scale, None if mask is None else mask[..., : k.shape[2]], causal)
