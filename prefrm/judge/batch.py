"""Sequences that are read together, padded to one length, and what may attend to what.

Shapes: B sequences, L positions, A axes of a position, R readouts, N comparisons, S segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from prefrm.judge.images import ImageInput
from prefrm.judge.layout import SequenceInput

__all__ = ["GroupInput", "JudgeBatch", "batch_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupInput:
    """Comparisons of one prompt's images, ready to be read together.

    Attributes:
        sequences: what the backbone reads.
        pairs: for each comparison the two readouts that it is between, numbered over all `sequences`;
            of a pairwise head, whose readout is a comparison, twice that readout.
    """

    sequences: tuple[SequenceInput, ...]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeBatch:
    """Sequences padded on the right to one length.

    Attributes:
        ids_BL: int64.
        mask: what may be attended to. int64 [B, L], 1 where a position is real, where attention is
            causal: no position sees the padding after it. Otherwise bool [B, 1, L, L], query before key.
        positions_ABL: int64.
        reads_R2: int64, row and position of each readout.
        pairs_N2: int64, for each comparison the two readouts that it is between.
        images: each row's images, in order; an image in several places is one object.
    """

    ids_BL: torch.Tensor
    mask: torch.Tensor
    positions_ABL: torch.Tensor
    reads_R2: torch.Tensor
    pairs_N2: torch.Tensor
    images: tuple[tuple[ImageInput, ...], ...]

    def __len__(self) -> int:
        return len(self.pairs_N2)

    @property
    def distinct_images(self) -> list[ImageInput]:
        """Every image of the batch once, in order of first appearance."""
        return list(dict.fromkeys(chain.from_iterable(self.images)))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "JudgeBatch":
        """The same batch on `device`; pixels move when they are encoded."""
        names = ("ids_BL", "mask", "positions_ABL", "reads_R2", "pairs_N2")
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names}
        return replace(self, **moved)


def batch_of(groups: Sequence[GroupInput], *, pad_id: int, length: int = 0) -> JudgeBatch:
    """One batch of the groups' comparisons, in order.

    Sequences are filled with `pad_id`, to the longest of them and to `length` at least.
    """
    rows = [sequence for group in groups for sequence in group.sequences]
    pairs, before = [], 0
    for group in groups:
        pairs += [(before + i, before + j) for i, j in group.pairs]
        before += sum(len(sequence.reads) for sequence in group.sequences)
    length = max(length, *map(len, rows))
    positions_BLA = _padded([row.positions_AL.T for row in rows], length)
    ones_BL = _padded([torch.ones_like(row.ids_L) for row in rows], length)
    return JudgeBatch(
        ids_BL=_padded([row.ids_L for row in rows], length, pad_id),
        mask=_segment_mask(rows, length) if any(row.sees_SS is not None for row in rows) else ones_BL,
        positions_ABL=positions_BLA.permute(2, 0, 1),
        reads_R2=torch.tensor(
            [(n, read) for n, row in enumerate(rows) for read in row.reads], dtype=torch.int64
        ).reshape(-1, 2),
        pairs_N2=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        images=tuple(row.images for row in rows),
    )


def _padded(rows: Sequence[torch.Tensor], length: int, value: int = 0) -> torch.Tensor:
    padded = pad_sequence(list(rows), batch_first=True, padding_value=value)
    missing = length - padded.shape[1]
    return padded if not missing else pad(padded, (0, 0) * (padded.ndim - 2) + (0, missing), value=value)


def _segment_mask(rows: Sequence[SequenceInput], length: int) -> torch.Tensor:
    mask_BLL = torch.zeros(len(rows), length, length, dtype=torch.bool)
    for n, row in enumerate(rows):
        sees_SS = torch.ones(1, 1, dtype=torch.bool) if row.sees_SS is None else row.sees_SS
        allowed_LL = sees_SS[row.segment_L[:, None], row.segment_L[None, :]].tril()
        mask_BLL[n, : len(row), : len(row)] = allowed_LL
    # Padding sees itself: attention to nothing would be NaN.
    mask_BLL |= torch.eye(length, dtype=torch.bool)
    return mask_BLL[:, None]
