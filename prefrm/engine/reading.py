"""Passes of a language model whose rows attend to blocks that were read before.

Their attention is that of `prefrm.engine.attention`, in every family's layers (`prefrm.judge.attention`). Of
rows that are read out, the last layer computes one position: nothing depends on its others but the
keys and values that this one attends to.

Shapes: B rows, S tokens of a row, R positions that are read, H query heads, C heads of keys and values,
D numbers of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from prefrm.engine.attention import KVBlocks, Shared, attend, merge_attention, padding
from prefrm.engine.plan import WHOLE
from prefrm.judge import ImageInput, Judge, Segment

__all__ = ["Features", "Reading", "Rows", "keep_rows", "read_rows"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Segments side by side in one pass of the language model, each a row of tokens, padded on the right.

    Attributes:
        ids_BS: int64.
        positions_ABS: int64.
        lengths: of the rows without padding.
        images: in the order of their tokens.
    """

    ids_BS: torch.Tensor
    positions_ABS: torch.Tensor
    lengths: tuple[int, ...]
    images: tuple[ImageInput, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment], pad_id: int, length: int = 0) -> "Rows":
        """Rows of these segments, padded with `pad_id` to the longest, and to `length` at least."""
        lengths = tuple(map(len, segments))
        size = max(length, *lengths)
        ids_BS = torch.full((len(segments), size), pad_id)
        positions_BSA = torch.zeros(len(segments), size, len(segments[0].offsets_AL), dtype=torch.int64)
        real_BS = torch.arange(size) < torch.tensor(lengths)[:, None]
        ids_BS[real_BS] = torch.cat([segment.ids_L for segment in segments])
        positions_BSA[real_BS] = torch.cat([segment.positions_AL for segment in segments], dim=1).T
        images = tuple(image for segment in segments for image in segment.images)
        return cls(
            ids_BS=ids_BS, positions_ABS=positions_BSA.permute(2, 0, 1), lengths=lengths, images=images
        )


def read_rows(
    judge: Judge, rows: Rows, seen: Sequence[Shared], features: Features, *, fixed: bool
) -> torch.Tensor:
    """The head's readings of the last position of each row, each attending to itself and to what it shares.

    Args:
        judge: whose model reads.
        rows: of one pass.
        seen: what they attend to.
        features: of their images.
        fixed: whether the pass has a fixed shape.
    """
    ends = [(n, length - 1) for n, length in enumerate(rows.lengths)]
    if fixed:
        ends += ends[:1] * (-len(ends) % WHOLE)
    layers = judge.model.get_decoder().layers
    reads_R2 = torch.tensor(ends, device=judge.device)
    active = Reading(seen, read=len(layers) - 1, reads_R2=reads_R2, fixed=fixed)
    with _only_at(layers[-1], reads_R2):
        hidden_BSD = _hidden(judge, rows, features, active)
    return judge.read(hidden_BSD[reads_R2[:, 0], reads_R2[:, 1]])[: len(rows.lengths)]


def keep_rows(judge: Judge, rows: Rows, seen: Sequence[Shared], features: Features) -> KVBlocks:
    """The rows as blocks to which later rows attend; arguments as of `read_rows`."""
    active = Reading(seen, keep=len(judge.model.get_decoder().layers))
    with suppress(_KeptAllError):
        _hidden(judge, rows, features, active)
    return active.blocks(rows.lengths)


def _hidden(judge: Judge, rows: Rows, features: Features, attend: Reading) -> torch.Tensor:
    device = judge.device
    shown = [features[image] for image in rows.images]
    return judge.hidden(rows.ids_BS.to(device), rows.positions_ABS.to(device), shown, attend)
