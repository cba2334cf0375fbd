"""Passes of a language model whose rows attend to blocks that were read before.

`transformers` calls the attention of `prefrm.engine.attention` in place of its own, in the models of every
family. Of rows that are read out, the last layer computes one position: nothing depends on its others but the
keys and values that this one attends to.

Shapes: B rows, S tokens of a row, H query heads, C heads of keys and values, D numbers of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

from prefrm.engine.attention import Memory, Shared, attend, padding, together
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
        read: the layer of which one position of each row is wanted; the others are 0 there.
        ends: of each row, that position; the row's tokens end there.
    """

    def __init__(
        self, seen: Sequence[Shared], *, keep: int = 0, read: int | None = None, ends: Sequence[int] = ()
    ) -> None:
        self._seen = seen
        self._keep = keep
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._read = read
        self._ends = list(ends)

    def __call__(
        self, layer: int, q_BHSD: torch.Tensor, k_BCSD: torch.Tensor, v_BCSD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The attention of one layer, [B, S, H, D]."""
        if self._keep:
            self._kept[layer] = (k_BCSD, v_BCSD)
            if len(self._kept) == self._keep:
                raise _KeptAllError
        if layer == self._read:
            return self._at_ends(layer, q_BHSD, k_BCSD, v_BCSD, scale)
        share = q_BHSD.shape[1] // k_BCSD.shape[1]
        k_BHSD, v_BHSD = (x.repeat_interleave(share, dim=1) for x in (k_BCSD, v_BCSD))
        own = attend(q_BHSD, k_BHSD, v_BHSD, scale=scale, causal=True)
        return self._with_seen(own, layer, q_BHSD, scale).transpose(1, 2).contiguous()

    def memory(self, lengths: Sequence[int]) -> Memory:
        """The first rows as blocks; `lengths` are those of the rows without padding."""
        count = len(lengths)
        layers = tuple((k[:count], v[:count]) for _, (k, v) in sorted(self._kept.items()))
        return Memory(layers=layers, lengths=tuple(lengths))

    def _at_ends(
        self, layer: int, q_BHSD: torch.Tensor, k_BCSD: torch.Tensor, v_BCSD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        (B, H, S, D), C = q_BHSD.shape, k_BCSD.shape[1]
        at = (torch.arange(B, device=q_BHSD.device), torch.tensor(self._ends, device=q_BHSD.device))
        q_BH1D = q_BHSD.transpose(1, 2)[at][:, :, None]
        mask = padding([end + 1 for end in self._ends], k_BCSD)
        found, sums = attend(q_BH1D.view(B, C, H // C, D), k_BCSD, v_BCSD, scale=scale, mask=mask)
        own = (found.reshape(B, H, 1, D), sums.reshape(B, H, 1))
        whole_BSHD = q_BHSD.new_zeros(B, S, H, D)
        whole_BSHD[at] = self._with_seen(own, layer, q_BH1D, scale)[:, :, 0]
        return whole_BSHD

    def _with_seen(
        self, own: tuple[torch.Tensor, torch.Tensor], layer: int, q_BHSD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        return together([own, *(shared(q_BHSD, layer, scale) for shared in self._seen)])


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
    judge: Judge, rows: Sequence[SequenceInput], seen: Sequence[Shared], features: Features
) -> torch.Tensor:
    """The head's readings of the rows' readouts, each row attending to itself and to what it shares."""
    batch = judge.processor.collate(rows)
    layers = judge.model.get_decoder().layers
    active = Reading(seen, read=len(layers) - 1, ends=batch.reads_R2[:, 1].tolist())
    with _attending(judge.model, active), _only_at(layers[-1], batch.reads_R2.to(judge.device)):
        return judge.read(batch, features)


def keep_rows(
    judge: Judge, rows: Sequence[SequenceInput], seen: Sequence[Shared], features: Features
) -> Memory:
    """The rows as blocks to which later rows attend."""
    active = Reading(seen, keep=len(judge.model.get_decoder().layers))
    with _attending(judge.model, active), suppress(_KeptAllError):
        judge.read(judge.processor.collate(rows), features)
    return active.memory([len(row) for row in rows])
