"""Attention over a batch of packed segments, in place of that of `transformers`, in every family's layers.

`transformers` looks attention functions up by name and gives them the keyword arguments of the model's
forward pass. The one that is registered here calls the `attend` among them: of a training batch one of this
module, of the engine's passes that of `prefrm.engine.reading`. Activation checkpointing keeps these arguments
for the forward pass that it repeats. A forward pass without `attend`, of rows without padding, is that of
`transformers`.

On a CPU, attention is computed level by level of the trees, each segment's queries against the gathered keys
of the segments that it sees and its own: only scores of padding are computed in vain. On CUDA it is
FlexAttention with a block mask (arXiv 2412.05496), whose backward pass runs on few other devices.

Shapes: T tokens, N segments of a level, Q queries of a segment, R queries of all, L keys of a segment,
H query heads, C heads of keys and values, D numbers of a head.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
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


# Not compiled: what segments attend to depends on the data.
AttentionInterface.register(NAME, torch.compiler.disable(_attention))


def segment_attention(batch: JudgeBatch) -> Attend:
    """The fastest attention for a batch on its device."""
    return attend_flex(batch) if batch.ids_T.device.type == "cuda" else attend_levels(batch)


class _Level(NamedTuple):
    """Segments that attend to themselves and to earlier levels.

    Attributes:
        queries_NQ: int64, tokens of each segment, padded with the first token of the batch.
        real_R: int64, which of the N * Q queries are no padding.
        keys_NL: int64, tokens of the segments that each segment sees, then its own; padded alike.
        mask_N1QL: bool, which keys each query attends to; None for all.
    """

    queries_NQ: torch.Tensor
    real_R: torch.Tensor
    keys_NL: torch.Tensor
    mask_N1QL: torch.Tensor | None


def attend_levels(batch: JudgeBatch) -> Attend:
    """One call of the fused kernel for each level of the trees, on a CPU."""
    levels = list(_levels(batch))

    def attend(
        layer: int, q_1HTD: torch.Tensor, k_1CTD: torch.Tensor, v_1CTD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        q_THD, k_TCD, v_TCD = (x[0].transpose(0, 1) for x in (q_1HTD, k_1CTD, v_1CTD))
        found = []
        for queries_NQ, real_R, keys_NL, mask_N1QL in levels:
            q_NHQD, k_NCLD, v_NCLD = (
                x[tokens].transpose(1, 2)
                for x, tokens in ((q_THD, queries_NQ), (k_TCD, keys_NL), (v_TCD, keys_NL))
            )
            found_NHQD = scaled_dot_product_attention(
                q_NHQD, k_NCLD, v_NCLD, attn_mask=mask_N1QL, scale=scale, enable_gqa=True
            )
            found.append(found_NHQD.transpose(1, 2).flatten(0, 1)[real_R])
        # The segments stand level by level in the batch, too.
        return torch.cat(found)[None]

    return attend


def _levels(batch: JudgeBatch) -> Iterator[_Level]:
    tokens = torch.arange(len(batch.ids_T)).split(batch.lengths_S.tolist())
    keys = [
        torch.cat([*(tokens[n] for n in seen if n >= 0), own])
        for own, seen in zip(tokens, batch.sees_SE.tolist(), strict=True)
    ]
    start = 0
    for count in batch.levels:
        level = slice(start, start + count)
        start += count
        queries_NQ, keys_NL = (pad_sequence(some[level], batch_first=True) for some in (tokens, keys))
        lengths_N, ends_N = (torch.tensor([*map(len, some[level])]) for some in (tokens, keys))
        query_Q, key_L = torch.arange(queries_NQ.shape[1]), torch.arange(keys_NL.shape[1])
        # Padded queries attend to keys, too: a softmax over none has no gradient.
        last_NQ = torch.minimum((ends_N - lengths_N)[:, None] + query_Q, ends_N[:, None] - 1)
        mask_N1QL = (key_L <= last_NQ[..., None])[:, None]
        real_R = (query_Q < lengths_N[:, None]).flatten().nonzero()[:, 0]
        yield _Level(queries_NQ, real_R, keys_NL, None if mask_N1QL.all() else mask_N1QL)


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
