"""Attention over a batch of packed segments, in place of that of `transformers`, in every family's layers.

`transformers` looks attention functions up by name and gives them the keyword arguments of the model's
forward pass. The one that is registered here calls the `attend` among them: of a training batch one of this
module, of the engine's passes that of `prefrm.engine.reading`. Activation checkpointing keeps these arguments
for the forward pass that it repeats. A forward pass without `attend`, of rows without padding, is that of
`transformers`.

On a CPU, attention is computed level by level of the trees, each segment's queries against its own keys and
those of the segments that it sees, gathered: no score is computed that a mask would hide, but for padding. On
CUDA it is FlexAttention with a block mask (arXiv 2412.05496), whose backward pass runs on few other devices.

Shapes: T tokens, S segments, E segments that one sees, N segments of a level, Q queries of a segment, L keys
that it attends to, H query heads, C heads of keys and values, D numbers of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prefrm.errors import ConfigError
from prefrm.judge.batch import JudgeBatch

__all__ = ["Attend", "attend_flex", "attend_levels", "segment_attention", "use_attend"]

NAME = "prefrm"
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""From a layer's number, queries [B, H, L, D], keys and values [B, C, L, D] and the scale of the scores to
the attention [B, L, H, D]."""


def use_attend(model: Any) -> None:
    """Have the language model of a `transformers` model call the `attend` of its forward pass.

    Raises:
        ConfigError: the language model attends to a sliding window, and segments are seen whole.
    """
    config = model.get_decoder().config
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ConfigError(
            "the base model attends to a sliding window, which judges do not; set use_sliding_window to "
            "false in its config.json if no prompt reaches that far"
        )
    config._attn_implementation = NAME


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    attend: Attend | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    if attend is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(module.layer_idx, query, key, value, scale), None


# How segments attend is not the compiler's business.
AttentionInterface.register(NAME, torch.compiler.disable(_attention))


def segment_attention(batch: JudgeBatch) -> Attend:
    """The fastest attention for a batch on its device."""
    return attend_flex(batch) if batch.ids_T.device.type == "cuda" else attend_levels(batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Segments that attend to earlier levels and to themselves, padded to the longest.

    Attributes:
        queries_NQ: int64, tokens.
        keys_NL: int64, tokens.
        mask_NQL: bool, which keys each query attends to; None for all.
    """

    queries_NQ: torch.Tensor
    keys_NL: torch.Tensor
    mask_NQL: torch.Tensor | None


def attend_levels(batch: JudgeBatch) -> Attend:
    """One call of the fused kernel for each level of the trees."""
    levels = _levels(batch)
    place_T = _places(batch, levels)

    def attend(
        layer: int, q_1HTD: torch.Tensor, k_1CTD: torch.Tensor, v_1CTD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        q_THD, k_TCD, v_TCD = (x[0].transpose(0, 1) for x in (q_1HTD, k_1CTD, v_1CTD))
        found = []
        for level in levels:
            q, k, v = (
                x[where].transpose(1, 2)
                for x, where in ((q_THD, level.queries_NQ), (k_TCD, level.keys_NL), (v_TCD, level.keys_NL))
            )
            mask = None if level.mask_NQL is None else level.mask_NQL[:, None]
            found_NHQD = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
            found.append(found_NHQD.transpose(1, 2).flatten(0, 1))
        return torch.cat(found)[place_T][None]

    return attend


def _levels(batch: JudgeBatch) -> list[_Level]:
    starts_S = batch.lengths_S.cumsum(0) - batch.lengths_S
    levels, before = [], 0
    for count in batch.levels:
        segments_N = torch.arange(before, before + count, device=starts_S.device)
        before += count
        keys, masks = [], []
        for seen_N in batch.sees_SE[segments_N].unbind(dim=1):
            there_N = seen_N >= 0
            if there_N.any():
                tokens, real = _tokens(starts_S[seen_N], batch.lengths_S[seen_N] * there_N)
                keys.append(tokens)
                masks.append(real[:, None])
        own_NQ, real_NQ = _tokens(starts_S[segments_N], batch.lengths_S[segments_N])
        size = own_NQ.shape[1]
        masks = [mask.expand(-1, size, -1) for mask in masks]
        causal_QQ = torch.ones(size, size, dtype=torch.bool, device=own_NQ.device).tril()
        mask_NQL = torch.cat([*masks, real_NQ[:, None] & causal_QQ], dim=2)
        levels.append(
            _Level(
                queries_NQ=own_NQ,
                keys_NL=torch.cat([*keys, own_NQ], dim=1),
                mask_NQL=None if bool(mask_NQL.all()) else mask_NQL,
            )
        )
    return levels


def _tokens(starts_N: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens [N, L] of segments, padded to the longest with their first, and which of them are real."""
    steps_L = torch.arange(int(lengths_N.max()), device=starts_N.device)
    real_NL = steps_L < lengths_N[:, None]
    return starts_N[:, None] + steps_L * real_NL, real_NL


def _places(batch: JudgeBatch, levels: list[_Level]) -> torch.Tensor:
    """Where each token stands among the padded queries of all levels, int64 [T]."""
    queries = torch.cat([level.queries_NQ.flatten() for level in levels])
    place_T = torch.empty_like(batch.ids_T)
    # Padding repeats a segment's first token: reversed, the real one is written last.
    place_T[queries.flip(0)] = torch.arange(len(queries), device=queries.device).flip(0)
    return place_T


def attend_flex(batch: JudgeBatch) -> Attend:
    """FlexAttention over all tokens, which leaves out blocks of 128 x 128 scores that are masked.

    Compiled on a GPU; on a CPU, where it is only tested, it computes all scores.
    """
    device, size = batch.ids_T.device, len(batch.ids_T)
    segments_S = torch.arange(len(batch.lengths_S), device=device)
    segment_T = torch.repeat_interleave(segments_S, batch.lengths_S, output_size=size)
    # Tensors of their own: a kernel that is compiled for aligned ones copies views that are not.
    seen = tuple(seen_S[segment_T] for seen_S in batch.sees_SE.unbind(dim=1))

    def allowed(b: torch.Tensor, h: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        segment = segment_T[key]
        mask = (segment_T[query] == segment) & (key <= query)
        # Compiled masks are computed element by element: no reduction.
        for seen_T in seen:
            mask = mask | (seen_T[query] == segment)
        return mask

    flex, make_blocks = flex_attention, create_block_mask
    if device.type != "cpu":
        flex, make_blocks = _compiled(flex), _compiled(make_blocks)
    blocks = make_blocks(allowed, None, None, size, size, device=device)

    def attend(
        layer: int, q_1HTD: torch.Tensor, k_1CTD: torch.Tensor, v_1CTD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        # Under autocast, rotary positions make float32 of queries and keys, for which the kernels are slow.
        q, k = q_1HTD.to(v_1CTD.dtype), k_1CTD.to(v_1CTD.dtype)
        found_1HTD: torch.Tensor = flex(q, k, v_1CTD, block_mask=blocks, scale=scale, enable_gqa=True)
        return found_1HTD.transpose(1, 2)

    return attend


@cache
def _compiled(function: Any) -> Any:
    # Not `dynamic=True`: the kernels need the number of heads and the scale as constants. Lengths become
    # dynamic once they differ.
    return torch.compile(function)
