"""Attention of vision towers that pack images: each patch attends to those of its own image or window.

Of such a packed sequence `transformers` attends to every image, and in Qwen2.5-VL to every window of 8 x 8
patches, in a call of its own, unless a FlashAttention package is installed: on a GPU thousands of calls for a
pass, each after waiting for the lengths. Here FlashAttention takes the boundaries (arXiv 2307.08691), one
call for each layer, where torch has it; elsewhere the calls are those of `transformers`.

Shapes: T patches, H heads, D numbers of a head.
"""

from inspect import signature
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from prefrm.judge.kernels import kernel_for

__all__ = ["attend_windows", "use_windows"]

NAME = "prefrm_flash"
"""`transformers` gives the boundaries to implementations whose name has "flash" in it."""


def use_windows(tower: Any) -> None:
    """Have a vision tower call `attend_windows`, if it packs images."""
    if any("cu_seqlens" in signature(type(module).forward).parameters for module in tower.modules()):
        tower.config._attn_implementation = NAME


def attend_windows(
    module: Any,
    q_1HTD: torch.Tensor,
    k_1HTD: torch.Tensor,
    v_1HTD: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention [1, T, H, D] within windows of one sequence, as `transformers` calls it.

    Args:
        module: the layer.
        q_1HTD: queries.
        k_1HTD: keys.
        v_1HTD: values.
        attention_mask: none.
        scaling: of the scores.
        cu_seq_lens_q: int32, the first patch of each window, and T.
        max_length_q: patches of the largest window.
    """
    if kernel_for(q_1HTD) == "flash":
        q, k, v = (x[0].transpose(0, 1) for x in (q_1HTD, k_1HTD, v_1HTD))
        starts, longest = cu_seq_lens_q, max_length_q
        found_THD: torch.Tensor = torch.ops.aten._flash_attention_forward(
            q, k, v, starts, starts, longest, longest, 0.0, False, False, scale=scaling
        )[0]
        return found_THD[None], None
    sizes = cu_seq_lens_q.diff().tolist()
    windows = zip(*(x.split(sizes, dim=2) for x in (q_1HTD, k_1HTD, v_1HTD)), strict=True)
    found = [scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in windows]
    return torch.cat([some.transpose(1, 2) for some in found], dim=1), None


# As that of the language model, it is not compiled: it reads the boundaries or calls FlashAttention.
AttentionInterface.register(NAME, torch.compiler.disable(attend_windows))
