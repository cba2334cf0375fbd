"""Where everything of a reading stands: segments of a sequence, what each of them sees, where they start.

A sequence is a row of segments. A position attends to the earlier positions of its own segment and to the
segments that its segment sees. The `joint` attention is one segment; the `isolated` one is

    [ prefix ] [ slot 1 ]... [ slot 2 ]... [ readout ]...

in which a slot sees the prefix alone and a readout the prefix and its two slots. Slot 1 starts after the
prefix, slot 2 a stride later and the readout two strides later, whatever the images' sizes: so the keys
and values of an image in a slot depend on the prompt, that image and that slot alone, and a group's
readouts share them. Knows no tokenizer and no model.

Shapes: L positions, A axes of a position, S segments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from prefrm.judge.images import ImageInput

__all__ = ["Part", "Positions", "Segment", "SequenceInput", "arrange"]

Part = list[int] | ImageInput
"""A run of token ids, or an image in the place of its tokens."""
Positions = Callable[[Sequence[int | ImageInput]], torch.Tensor]
"""From text lengths and images, in reading order, to position ids [A, L] that start at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of a sequence.

    Attributes:
        parts: what it holds, in reading order.
        start: the position of its first token.
        sees: earlier segments of the sequence, by their place, that it attends to besides itself.
        read: whether its last position is a readout.
    """

    parts: tuple[Part, ...]
    start: int = 0
    sees: tuple[int, ...] = ()
    read: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceInput:
    """A sequence that a backbone can read.

    Attributes:
        ids_L: int64; an image's tokens are placeholders.
        positions_AL: int64.
        images: in the order of their tokens.
        reads: the positions of the readouts.
        segment_L: int64, the segment of each position.
        sees_SS: bool; whether a segment (row) attends to another (column), or None for one causal segment.
    """

    ids_L: torch.Tensor
    positions_AL: torch.Tensor
    images: tuple[ImageInput, ...]
    reads: tuple[int, ...]
    segment_L: torch.Tensor
    sees_SS: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.ids_L)


def arrange(segments: Sequence[Segment], positions: Positions) -> SequenceInput:
    """The sequence of these segments; `positions` is the family's."""
    ids: list[int] = []
    blocks, reads, lengths = [], [], []
    for segment in segments:
        before = len(ids)
        for part in segment.parts:
            ids += part.ids if isinstance(part, ImageInput) else part
        parts = [part if isinstance(part, ImageInput) else len(part) for part in segment.parts]
        blocks.append(positions(parts) + segment.start)
        lengths.append(len(ids) - before)
        if segment.read:
            reads.append(len(ids) - 1)
    count = len(segments)
    sees_SS = None
    if count > 1:
        sees_SS = torch.eye(count, dtype=torch.bool)
        for n, segment in enumerate(segments):
            sees_SS[n, list(segment.sees)] = True
    return SequenceInput(
        ids_L=torch.tensor(ids),
        positions_AL=torch.cat(blocks, dim=1),
        images=tuple(p for segment in segments for p in segment.parts if isinstance(p, ImageInput)),
        reads=tuple(reads),
        segment_L=torch.repeat_interleave(torch.arange(count), torch.tensor(lengths)),
        sees_SS=sees_SS,
    )
