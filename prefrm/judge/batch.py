"""Groups that are read together: the segments of their trees, packed into one row of tokens.

Shapes: T tokens, A axes of a position, S segments, E segments that one segment sees at most, R readouts,
P positions of a readout, N comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence

from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Name, Pair, Segment, Tree

__all__ = ["JudgeBatch", "pack"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeBatch:
    """Segments of any number of groups, level by level of their trees: first all prefixes, and so on.

    Attributes:
        ids_T: int64.
        positions_AT: int64.
        lengths_S: int64, tokens of each segment; they stand one after another.
        sees_SE: int64, the segments that each segment attends to besides itself; -1 is none.
        levels: number of segments of each level; a segment sees those of earlier levels alone.
        reads_RP: int64, the tokens of each readout.
        pairs_N2: int64, for each comparison the two readouts that it is between; with Q readouts of a
            candidate [N, 2 Q], those of the first candidate before those of the second.
        images: in the order of their tokens; an image in several places is one object.
    """

    ids_T: torch.Tensor
    positions_AT: torch.Tensor
    lengths_S: torch.Tensor
    sees_SE: torch.Tensor
    levels: tuple[int, ...]
    reads_RP: torch.Tensor
    pairs_N2: torch.Tensor
    images: tuple[ImageInput, ...]

    def __len__(self) -> int:
        return len(self.pairs_N2)

    @property
    def distinct_images(self) -> list[ImageInput]:
        """Every image of the batch once, in order of first appearance."""
        return list(dict.fromkeys(self.images))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "JudgeBatch":
        """The same batch on `device`; pixels move when they are encoded."""
        names = ("ids_T", "positions_AT", "lengths_S", "sees_SE", "reads_RP", "pairs_N2")
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names}
        return replace(self, **moved)


def pack(groups: Sequence[tuple[Tree, Sequence[Pair]]]) -> JudgeBatch:
    """One batch of readable comparisons of all groups of one judge, in order."""
    levels: list[dict[tuple[int, Name], Segment]] = []
    for number, (tree, pairs) in enumerate(groups):
        for depth, level in enumerate(_levels(tree, pairs)):
            if depth == len(levels):
                levels.append({})
            levels[depth] |= {(number, name): segment for name, segment in level.items()}
    placed = [(key, segment) for level in levels for key, segment in level.items()]
    place = {key: n for n, (key, _) in enumerate(placed)}
    segments = [segment for _, segment in placed]
    lengths_S = torch.tensor([len(segment) for segment in segments])
    ends_S = lengths_S.cumsum(0)
    readouts = [
        [place[number, name] for name in tree.readouts(pair)]
        for number, (tree, pairs) in enumerate(groups)
        for pair in pairs
    ]
    before_P = torch.arange(groups[0][0].reads).flip(0)
    read_R, pairs_N2 = torch.tensor(readouts).unique(return_inverse=True)
    sees = [[place[key[0], name] for name in segment.sees] for key, segment in placed]
    return JudgeBatch(
        ids_T=torch.cat([segment.ids_L for segment in segments]),
        positions_AT=torch.cat([segment.positions_AL for segment in segments], dim=1),
        lengths_S=lengths_S,
        sees_SE=pad_sequence([torch.tensor(some, dtype=torch.int64) for some in sees], True, -1),
        levels=tuple(len(level) for level in levels),
        reads_RP=ends_S[read_R, None] - 1 - before_P,
        pairs_N2=pairs_N2,
        images=tuple(image for segment in segments for image in segment.images),
    )


def _levels(tree: Tree, pairs: Sequence[Pair]) -> list[dict[Name, Segment]]:
    """The levels of a tree and its answers to `pairs`, of which only what these depend on."""
    levels = [tree.answers(pairs)]
    seen = {name for segment in levels[0].values() for name in segment.sees}
    for level in reversed(tree.levels):
        needed = {name: segment for name, segment in level.items() if name in seen}
        seen.update(name for segment in needed.values() for name in segment.sees)
        levels.insert(0, needed)
    return levels
