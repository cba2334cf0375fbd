"""Attention to keys and values that many rows share, read where they stand.

A row of tokens attends to itself, causally, and to blocks that were read before: the prompt, an image, a
suffix. Rows that share a block are laid side by side and attend to it in one product, so its keys and
values are not copied for them; what a row finds in each place is weighed by the place's share of the
softmax, which is exact (Hydragen, arXiv 2402.05099; cascade attention in FlashInfer, arXiv 2501.01005).
Knows no model.

Shapes: B rows, S tokens of a row, F keys and values of all layers, G blocks, N rows that share a block,
L tokens of a block, H query heads, C heads of keys and values, D numbers of a head.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from prefrm.judge.kernels import MASK_ALIGNMENT, attend
from prefrm.judge.transfers import to_device

__all__ = ["KVBlocks", "Kept", "Shared", "merge_attention", "padding"]

Kept = tuple[Sequence[torch.Tensor], Sequence[int]]
"""Keys and values [B, C, S, D] of a pass, of each layer in turn, and the lengths of its rows."""
# If at least this share of a range of blocks is in use, the whole range is read in place; otherwise the used
# blocks are gathered, one layer at a time.
LEAST_USED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KVBlocks:
    """Keys and values of blocks in every layer: parts of a KV cache that rows share.

    Attributes:
        stacked_FGCLD: keys and values of each layer in turn.
        lengths: how many of the L tokens of each block are real.
    """

    stacked_FGCLD: torch.Tensor
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def collected(cls, parts: Iterable[Kept], *, counts: Sequence[int], length: int) -> "KVBlocks":
        """The first `counts` blocks of the parts, padded to `length`.

        A part goes before the next is drawn.
        """
        stacked_FGCLD = torch.empty(0)
        lengths: list[int] = []
        for count, (tensors, real) in zip(counts, parts, strict=True):
            if not lengths:
                _, C, _, D = tensors[0].shape
                stacked_FGCLD = tensors[0].new_zeros(len(tensors), sum(counts), C, length, D)
            place = slice(len(lengths), len(lengths) + count)
            for whole_GCLD, some in zip(stacked_FGCLD, tensors, strict=True):
                whole_GCLD[place, :, : some.shape[2]] = some[:count]
            lengths += real[:count]
        return cls(stacked_FGCLD=stacked_FGCLD, lengths=tuple(lengths))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Product:
    """Blocks, and the rows whose queries attend to each of them, in one batched product.

    Attributes:
        stacked_FGCLD: keys and values of blocks, as `KVBlocks` has them.
        some: which of them; a slice reads them in place, without a copy.
        rows_GN: int64, rows of each block, padded with row 0; the outputs of the padding are not used.
        mask: of padded blocks, as `padding` gives it.
    """

    stacked_FGCLD: torch.Tensor
    some: slice | torch.Tensor
    rows_GN: torch.Tensor
    mask: torch.Tensor | None

    @classmethod
    def of(
        cls,
        blocks: KVBlocks,
        some: slice | Sequence[int],
        rows: Sequence[Sequence[int]],
        width: int,
        *,
        masked: bool,
    ) -> "_Product":
        """For `width` rows a block, padded; `masked` is whether there is a mask even without padding."""
        like = blocks.stacked_FGCLD
        lengths = blocks.lengths[some] if isinstance(some, slice) else [blocks.lengths[n] for n in some]
        return cls(
            stacked_FGCLD=like,
            some=some if isinstance(some, slice) else to_device(some, like.device),
            rows_GN=to_device([[*of, *[0] * (width - len(of))] for of in rows], like.device),
            mask=padding(lengths, like.shape[3], like, always=masked),
        )

    def __call__(self, q_BHSD: torch.Tensor, layer: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs of all rows [G * N, H, S, D], block by block, and the log-sum-exp of their scores."""
        keys, values = (self.stacked_FGCLD[2 * layer + n][self.some] for n in (0, 1))
        (_, heads, S, D), (G, C), N = q_BHSD.shape, keys.shape[:2], self.rows_GN.shape[1]
        share = heads // C
        q_GCMD = (
            q_BHSD[self.rows_GN]
            .view(G, N, C, share, S, D)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(G, C, share * N * S, D)
        )
        found_GCMD, sums_GCM = attend(q_GCMD, keys, values, scale=scale, mask=self.mask)
        found = found_GCMD.view(G, C, share, N, S, D).permute(0, 3, 1, 2, 4, 5).reshape(G * N, heads, S, D)
        sums = sums_GCM.view(G, C, share, N, S).permute(0, 3, 1, 2, 4).reshape(G * N, heads, S)
        return found, sums

    def gathered(self) -> "_Product":
        """The same with copies of the blocks in use, in every layer."""
        return replace(self, stacked_FGCLD=self.stacked_FGCLD[:, self.some], some=slice(None))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """Blocks, and which of them each row of a pass attends to.

    Attributes:
        products: over blocks.
        where_B: int64, the index of each row's output among those of all products.
    """

    products: tuple[_Product, ...]
    where_B: torch.Tensor

    @classmethod
    def of(cls, blocks: KVBlocks, block_of_row: Sequence[int], *, tile: int | None = None) -> "Shared":
        """One block for each row.

        Args:
            blocks: keys and values.
            block_of_row: for each row of the pass the place of its block.
            tile: queries of this many rows that share a block are batched; None batches all of them. With a
                number, the shape of every product depends on the number of rows alone, whatever they share,
                and blocks are copied, one layer at a time, once for each tile.
        """
        used: dict[int, list[int]] = {block: [] for block in sorted(set(block_of_row))}
        for row, block in enumerate(block_of_row):
            used[block].append(row)
        if tile is None:
            chosen = [_everything(used)]
        else:
            chosen = list(_tiles(used, tile, at_once=-(-len(block_of_row) // tile)))
        width = max(map(len, used.values())) if tile is None else tile
        masked = tile is not None
        products = tuple(_Product.of(blocks, some, rows, width, masked=masked) for some, rows in chosen)
        place: dict[int, int] = {}
        lists = chain.from_iterable(rows for _, rows in chosen)
        for start, some in enumerate(lists):
            place |= {row: start * width + n for n, row in enumerate(some)}
        where = [place[row] for row in range(len(block_of_row))]
        return cls(products=products, where_B=to_device(where, blocks.stacked_FGCLD.device))

    def __call__(self, q_BHSD: torch.Tensor, layer: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of each row to its block [B, H, S, D], and the log-sum-exp of its scores [B, H, S]."""
        answers = [product(q_BHSD, layer, scale) for product in self.products]
        found, sums = (torch.cat(some) if len(some) > 1 else some[0] for some in zip(*answers, strict=True))
        return found[self.where_B], sums[self.where_B]

    def gathered(self) -> "Shared":
        """The same with copied blocks; with tiles, their shapes depend on the number of rows alone."""
        return replace(self, products=tuple(product.gathered() for product in self.products))


Asked = tuple[slice | Sequence[int], Sequence[Sequence[int]]]
"""Blocks, and the rows that attend to each of them."""


def _everything(used: Mapping[int, list[int]]) -> Asked:
    """All blocks in use, read in place if most of their range is in use."""
    cover = range(min(used), max(used) + 1)
    if len(used) < LEAST_USED * len(cover):
        return list(used), list(used.values())
    return slice(cover.start, cover.stop), [used.get(block, []) for block in cover]


def _tiles(used: Mapping[int, list[int]], width: int, *, at_once: int) -> Iterator[Asked]:
    """`at_once` blocks at a time, each with at most `width` of its rows."""
    tiles = [(block, rows[n : n + width]) for block, rows in used.items() for n in range(0, len(rows), width)]
    tiles += [(min(used), [])] * (-len(tiles) % at_once)
    for start in range(0, len(tiles), at_once):
        some, rows = zip(*tiles[start : start + at_once], strict=True)
        yield some, rows


def padding(
    lengths: Sequence[int], size: int, like: torch.Tensor, *, always: bool = False
) -> torch.Tensor | None:
    """The mask [G, 1, 1, W] that `attend` adds to scores: -inf where a block is padded, else 0.

    None where no block is, unless `always`. W is L, rounded up to `MASK_ALIGNMENT`.

    Args:
        lengths: of the blocks without padding.
        size: L.
        like: a tensor of the mask's type and device.
        always: whether there is a mask even without padding.
    """
    if min(lengths) == size and not always:
        return None
    width = -(-size // MASK_ALIGNMENT) * MASK_ALIGNMENT
    lengths_G = to_device(lengths, like.device)
    padded_GW = torch.arange(width, device=like.device) >= lengths_G[:, None]
    return like.new_zeros(padded_GW.shape).masked_fill(padded_GW, float("-inf"))[:, None, None]


def merge_attention(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """One attention from that over several places, each weighed by its share of the softmax (log-sum-exp)."""
    if len(parts) == 1:
        return parts[0][0]
    shares_PBHS1 = torch.stack([sums for _, sums in parts]).softmax(dim=0)[..., None]
    total = sum(found.float() * share for (found, _), share in zip(parts, shares_PBHS1, strict=True))
    return torch.as_tensor(total).to(parts[0][0].dtype)
