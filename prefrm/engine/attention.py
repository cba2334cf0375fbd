"""Attention to keys and values that many rows share, read where they stand.

A row of tokens attends to itself, causally, and to blocks that were read before: the prompt, an image in a
slot. Rows that share a block are laid side by side and attend to it in one product, so its keys and
values are not copied for them; what a row finds in each place is weighed by the place's share of the
softmax, which is exact (Hydragen, arXiv 2402.05099; cascade attention in FlashInfer, arXiv 2501.01005).
Knows no model.

Shapes: B rows, S tokens of a row, G blocks, N rows that share a block, L tokens of a block, H query heads,
C heads of keys and values, D numbers of a head.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

__all__ = ["KVBlocks", "Shared", "attend", "merge_attention", "padding"]

# Where torch has a fused kernel that also says what the softmax's sum was: no public function does.
FUSED = ("cpu",) if hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu") else ()
# Of neighbouring blocks so many are in use that they are read where they stand, and the others for nothing;
# of fewer, those in use are copied together, one layer at a time.
LEAST_USED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KVBlocks:
    """Keys and values of blocks in every layer: parts of a KV cache that rows share.

    Attributes:
        layers: keys and values [G, C, L, D] of each layer.
        lengths: how many of the L tokens of each block are real.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def collected(cls, parts: "Iterable[KVBlocks]", *, counts: Sequence[int], length: int) -> "KVBlocks":
        """The first blocks of all parts, so many of each, padded to `length`.

        A part goes before the next is drawn.
        """
        layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        lengths: list[int] = []
        for count, part in zip(counts, parts, strict=True):
            place = slice(len(lengths), len(lengths) + count)
            layers = layers or [
                (_zeros(k, sum(counts), length), _zeros(v, sum(counts), length)) for k, v in part.layers
            ]
            for whole, some in zip(
                chain.from_iterable(layers), chain.from_iterable(part.layers), strict=True
            ):
                whole[place, :, : some.shape[2]] = some[:count]
            lengths += part.lengths[:count]
        return cls(layers=tuple(layers), lengths=tuple(lengths))


def _zeros(like: torch.Tensor, blocks: int, length: int) -> torch.Tensor:
    return like.new_zeros(blocks, like.shape[1], length, like.shape[3])


class Shared:
    """Blocks, and which of them each row of a pass attends to.

    Args:
        blocks: keys and values.
        block_of_row: for each row of the pass the place of its block.
        tile: how many rows ask a block together; None for all that share it. With a number every product
            has a shape that the number of rows alone decides, whatever they share, and blocks are copied, one
            layer at a time, once for each tile.
    """

    def __init__(self, blocks: KVBlocks, block_of_row: Sequence[int], *, tile: int | None = None) -> None:
        used: dict[int, list[int]] = {block: [] for block in sorted(set(block_of_row))}
        for row, block in enumerate(block_of_row):
            used[block].append(row)
        self._blocks = blocks
        if tile is None:
            self._parts = [_everything(blocks, used)]
        else:
            self._parts = list(_tiles(blocks, used, tile, at_once=-(-len(block_of_row) // tile)))
        where = chain.from_iterable(part.places() for part in self._parts)
        place = {row: n for n, row in enumerate(where) if row is not None}
        device = blocks.layers[0][0].device
        self._where_B = torch.tensor([place[row] for row in range(len(place))], device=device)

    def __call__(self, q_BHSD: torch.Tensor, layer: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """What each row finds in its block, and the logarithm of the softmax's sum there [B, H, S]."""
        keys, values = self._blocks.layers[layer]
        answers = [part.ask(q_BHSD, keys, values, scale) for part in self._parts]
        found, sums = (torch.cat(some) if len(some) > 1 else some[0] for some in zip(*answers, strict=True))
        return found[self._where_B], sums[self._where_B]


class _Asked:
    """Blocks that are asked in one product, and the rows that ask each of them.

    Args:
        blocks: all of them.
        some: which they are; a slice reads them where they stand.
        rows: of each block; those with fewer than others are asked by row 0 too, whose answers nobody reads.
        width: how many rows ask each block.
        masked: whether a mask is given even if no block is padded.
    """

    def __init__(
        self,
        blocks: KVBlocks,
        some: slice | list[int],
        rows: Sequence[Sequence[int]],
        width: int,
        *,
        masked: bool,
    ) -> None:
        keys = blocks.layers[0][0]
        lengths = blocks.lengths[some] if isinstance(some, slice) else [blocks.lengths[n] for n in some]
        self._some = some if isinstance(some, slice) else torch.tensor(some, device=keys.device)
        self._rows, self._width = rows, width
        self._mask = padding(lengths, keys, always=masked)
        filled = [[*some, *[0] * (width - len(some))] for some in rows]
        self._rows_GN = torch.tensor(filled, device=keys.device)

    def places(self) -> Iterator[int | None]:
        """Which row each answer is for, or None."""
        for rows in self._rows:
            yield from rows
            yield from [None] * (self._width - len(rows))

    def ask(
        self, q_BHSD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Answers to all rows [G * N, H, S, D], block by block, and the logarithms of the softmaxes' sums."""
        keys, values = keys[self._some], values[self._some]
        (_, heads, S, D), (G, C) = q_BHSD.shape, keys.shape[:2]
        N, share = self._width, heads // C
        q_GCMD = (
            q_BHSD[self._rows_GN]
            .view(G, N, C, share, S, D)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(G, C, share * N * S, D)
        )
        found_GCMD, sums_GCM = attend(q_GCMD, keys, values, scale=scale, mask=self._mask)
        found = found_GCMD.view(G, C, share, N, S, D).permute(0, 3, 1, 2, 4, 5).reshape(G * N, heads, S, D)
        sums = sums_GCM.view(G, C, share, N, S).permute(0, 3, 1, 2, 4).reshape(G * N, heads, S)
        return found, sums


def _everything(blocks: KVBlocks, used: Mapping[int, list[int]]) -> _Asked:
    """All blocks in use in one product, read where they stand if they are neighbours."""
    cover = range(min(used), max(used) + 1)
    width = max(map(len, used.values()))
    if len(used) < LEAST_USED * len(cover):
        return _Asked(blocks, list(used), list(used.values()), width, masked=False)
    rows = [used.get(block, []) for block in cover]
    return _Asked(blocks, slice(cover.start, cover.stop), rows, width, masked=False)


def _tiles(blocks: KVBlocks, used: Mapping[int, list[int]], width: int, *, at_once: int) -> Iterator[_Asked]:
    """Products of `at_once` blocks, each asked by `width` rows."""
    tiles = [(block, rows[n : n + width]) for block, rows in used.items() for n in range(0, len(rows), width)]
    tiles += [(min(used), [])] * (-len(tiles) % at_once)
    for start in range(0, len(tiles), at_once):
        some, rows = zip(*tiles[start : start + at_once], strict=True)
        yield _Asked(blocks, list(some), rows, width, masked=True)


def padding(lengths: Sequence[int], keys: torch.Tensor, *, always: bool = False) -> torch.Tensor | None:
    """What is added to scores [G, 1, 1, L]: -inf where a block is padded.

    None where no block is, unless `always`.
    """
    if min(lengths) == keys.shape[2] and not always:
        return None
    lengths_G = torch.tensor(lengths, device=keys.device)
    padded_GL = torch.arange(keys.shape[2], device=keys.device) >= lengths_G[:, None]
    added_GL = torch.zeros(padded_GL.shape, dtype=keys.dtype, device=keys.device)
    return added_GL.masked_fill(padded_GL, float("-inf"))[:, None, None]


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [G, H, M, D] of queries [G, H, M, D] to keys and values [G, H, L, D].

    Args:
        scale: of the scores.
        mask: added to the scores, [G, 1, 1, L].
        causal: query m sees keys up to m.

    Returns: and the logarithm of the softmax's sum, float32 [G, H, M], for `merge_attention`.
    """
    if q.device.type in FUSED:
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=scale
        )
        return found, sums
    # Scores of half precision may be too large for it, and are too coarse.
    scores = (q.float() * scale) @ k.float().transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    sums = scores.logsumexp(dim=-1)
    return (scores - sums[..., None]).exp().to(v.dtype) @ v, sums


def merge_attention(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """One attention from that over several places, each weighed by its share of the softmax (log-sum-exp)."""
    if len(parts) == 1:
        return parts[0][0]
    share_PBHS = torch.stack([sums for _, sums in parts]).softmax(dim=0)
    total = sum(found.float() * share[..., None] for (found, _), share in zip(parts, share_PBHS, strict=True))
    return torch.as_tensor(total).to(parts[0][0].dtype)
