"""Passes of a language model whose rows attend to blocks that were read before.

`transformers` calls the attention of `prefrm.engine.attention` in place of its own, in the models of every
family. Of rows that are read out, the last layer computes one position: nothing depends on its others but the
keys and values that this one attends to.

Shapes: B rows, S tokens of a row, R positions that are read, H query heads, C heads of keys and values,
D numbers of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

from prefrm.engine.attention import KVBlocks, Shared, merge_attention, padding
from prefrm.engine.kernels import attend
from prefrm.engine.plan import WHOLE
from prefrm.judge import ImageInput, Judge, SequenceInput

__all__ = ["Reading", "keep_rows", "read_rows"]

NAME = "prefrm_shared"
# Of a layer, what follows its attention: so these families name it, with adapters or without.
AFTER_ATTENTION = ("self_attn.o_proj", "mlp")
Features = Mapping[ImageInput, torch.Tensor]


class Reading:
    """One pass of a language model over rows of tokens.

    Args:
        seen: what the rows attend to besides themselves.
        keep: of how many layers the pass's own keys and values are wanted; it ends with the last of them.
        read: the layer of which one position of each row is wanted, its last; the others are 0 there.
        reads_R2: int64, row and position of these: of each row in order, and then any of them again.
        fixed: whether padding is masked even where there is none, so that it makes no difference.
    """

    def __init__(
        self,
        seen: Sequence[Shared],
        *,
        keep: int = 0,
        read: int | None = None,
        reads_R2: torch.Tensor | None = None,
        fixed: bool = False,
    ) -> None:
        self._seen = seen
        self._keep = keep
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._read = read
        self._reads_R2 = reads_R2
        self._fixed = fixed

    def __call__(
        self, layer: int, q_BHSD: torch.Tensor, k_BCSD: torch.Tensor, v_BCSD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The attention of one layer, [B, S, H, D]."""
        if self._keep:
            self._kept[layer] = (k_BCSD, v_BCSD)
            if len(self._kept) == self._keep:
                raise _KeptAllError
        if layer == self._read and self._reads_R2 is not None:
            return self._at(self._reads_R2, layer, q_BHSD, k_BCSD, v_BCSD, scale)
        share = q_BHSD.shape[1] // k_BCSD.shape[1]
        k_BHSD, v_BHSD = (x.repeat_interleave(share, dim=1) for x in (k_BCSD, v_BCSD))
        own = attend(q_BHSD, k_BHSD, v_BHSD, scale=scale, causal=True)
        parts = [own, *(shared(q_BHSD, layer, scale) for shared in self._seen)]
        return merge_attention(parts).transpose(1, 2).contiguous()

    def blocks(self, lengths: Sequence[int]) -> KVBlocks:
        """The rows as blocks; `lengths` are those of the rows without padding."""
        layers = tuple(self._kept[layer] for layer in sorted(self._kept))
        return KVBlocks(layers=layers, lengths=tuple(lengths))

    def _at(
        self,
        reads_R2: torch.Tensor,
        layer: int,
        q_BHSD: torch.Tensor,
        k_BCSD: torch.Tensor,
        v_BCSD: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        (B, H, S, D), C = q_BHSD.shape, k_BCSD.shape[1]
        rows_R, ends_R = reads_R2.unbind(dim=1)
        q_BH1D = q_BHSD.transpose(1, 2)[rows_R[:B], ends_R[:B]][:, :, None]
        mask = padding((ends_R[:B] + 1).tolist(), k_BCSD, always=self._fixed)
        found, sums = attend(q_BH1D.view(B, C, H // C, D), k_BCSD, v_BCSD, scale=scale, mask=mask)
        own = (found.reshape(B, H, 1, D), sums.reshape(B, H, 1))
        parts = [own, *(shared(q_BH1D, layer, scale) for shared in self._seen)]
        found_RH1D = merge_attention([(found[rows_R], sums[rows_R]) for found, sums in parts])
        whole_BSHD = q_BHSD.new_zeros(B, S, H, D)
        whole_BSHD[rows_R, ends_R] = found_RH1D[:, :, 0]
        return whole_BSHD


class _KeptAllError(Exception):
    """Ends a pass of which only keys and values are wanted before the rest of its last layer."""


_reading: ContextVar[Reading] = ContextVar("reading")


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _reading.get()(module.layer_idx, query, key, value, scale), None


# What a pass attends to is not the compiler's business.
AttentionInterface.register(NAME, torch.compiler.disable(_attention))


@contextmanager
def _attending(model: Any, active: Reading) -> Iterator[None]:
    config, token = model.get_decoder().config, _reading.set(active)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _reading.reset(token)


@contextmanager
def _only_at(layer: Any, reads_R2: torch.Tensor) -> Iterator[None]:
    """In the block, what follows the layer's attention is computed for these rows and positions alone."""
    modules = [layer.get_submodule(name) for name in AFTER_ATTENTION]
    for module in modules:
        module.forward = partial(_at, module.forward, reads_R2.unbind(dim=1))
    try:
        yield
    finally:
        for module in modules:
            # The class's own method is found again.
            del module.forward


def _at(forward: Any, at: tuple[torch.Tensor, ...], x_BSD: torch.Tensor) -> torch.Tensor:
    found_RD: torch.Tensor = forward(x_BSD[at])
    whole_BSD = found_RD.new_zeros(*x_BSD.shape[:2], found_RD.shape[-1])
    whole_BSD[at] = found_RD
    return whole_BSD


def read_rows(
    judge: Judge, rows: Sequence[SequenceInput], seen: Sequence[Shared], features: Features, length: int = 0
) -> torch.Tensor:
    """The head's readings of the rows' readouts, each row attending to itself and to what it shares.

    Args:
        judge: whose model reads.
        rows: one readout each.
        seen: what they attend to.
        features: of their images.
        length: to which the rows are padded, so that the pass has a fixed shape; 0 for the longest of them.
    """
    batch = judge.processor.collate(rows, length)
    if length:
        again = batch.reads_R2[:1].expand(-len(rows) % WHOLE, 2)
        batch = replace(batch, reads_R2=torch.cat([batch.reads_R2, again]))
    layers = judge.model.get_decoder().layers
    reads_R2 = batch.reads_R2.to(judge.device)
    active = Reading(seen, read=len(layers) - 1, reads_R2=reads_R2, fixed=length > 0)
    with _attending(judge.model, active), _only_at(layers[-1], reads_R2):
        return judge.read(batch, features)[: len(rows)]


def keep_rows(
    judge: Judge, rows: Sequence[SequenceInput], seen: Sequence[Shared], features: Features, length: int = 0
) -> KVBlocks:
    """The rows as blocks to which later rows attend; arguments as of `read_rows`."""
    active = Reading(seen, keep=len(judge.model.get_decoder().layers))
    with _attending(judge.model, active), suppress(_KeptAllError):
        judge.read(judge.processor.collate(rows, length), features)
    return active.blocks([len(row) for row in rows])
