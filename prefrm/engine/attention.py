"""Attention to keys and values that many rows share, read where they stand.

A row of tokens attends to itself, causally, and to blocks that were read before: the prompt, an image in a
slot. Rows that share a block are laid side by side and attend to it in one product, so its keys and
values are not copied for them; what a row finds in each place is weighed by the place's share of the
softmax, which is exact (Hydragen, arXiv 2402.05099; cascade attention in FlashInfer, arXiv 2501.01005).

Shapes: B rows, S tokens of a row, G blocks, N rows that share a block, L tokens of a block, H query heads,
C heads of keys and values, D numbers of a head.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Memory", "Shared", "attend", "padding", "together"]

# Where torch has a fused kernel that also says what the softmax's sum was: no public function does.
FUSED = ("cpu",) if hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu") else ()
# Of neighbouring blocks so many are in use that they are read where they stand, and the others for nothing;
# of fewer, those in use are copied together, one layer at a time.
LEAST_USED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """Keys and values of blocks, in every layer.

    Attributes:
        layers: keys and values [G, C, L, D] of each layer.
        lengths: how many of the L tokens of each block are real.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def collected(cls, parts: "Iterable[Memory]", *, blocks: int, length: int) -> "Memory":
        """The blocks of all parts, in order, padded to `length`; a part goes before the next is drawn."""
        layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        lengths: list[int] = []
        for part in parts:
            place = slice(len(lengths), len(lengths) + len(part))
            layers = layers or [
                (_zeros(k, blocks, length), _zeros(v, blocks, length)) for k, v in part.layers
            ]
            for (keys, values), (k, v) in zip(layers, part.layers, strict=True):
                keys[place, :, : k.shape[2]] = k
                values[place, :, : v.shape[2]] = v
            lengths += part.lengths
        return cls(layers=tuple(layers), lengths=tuple(lengths))


def _zeros(like: torch.Tensor, blocks: int, length: int) -> torch.Tensor:
    return like.new_zeros(blocks, like.shape[1], length, like.shape[3])


class Shared:
    """Blocks, and which of them each row of a pass attends to.

    Args:
        memory: the blocks.
        block_of_row: for each row of the pass the place of its block.
    """

    def __init__(self, memory: Memory, block_of_row: Sequence[int]) -> None:
        used: dict[int, list[int]] = {block: [] for block in sorted(set(block_of_row))}
        for row, block in enumerate(block_of_row):
            used[block].append(row)
        cover = range(min(used), max(used) + 1)
        self._some: slice | list[int] = slice(cover.start, cover.stop)
        if len(used) < LEAST_USED * len(cover):
            self._some = list(used)
        else:
            used = {block: used.get(block, []) for block in cover}
        width = max(map(len, used.values()))
        self._memory = memory
        device = memory.layers[0][0].device
        self._mask = padding([memory.lengths[block] for block in used], memory.layers[0][0])
        # Blocks with fewer rows than others are asked by row 0 in their place; nobody reads the answers.
        rows = [[*some, *[0] * (width - len(some))] for some in used.values()]
        self._rows_GN = torch.tensor(rows, device=device)
        where = {row: n * width + m for n, some in enumerate(used.values()) for m, row in enumerate(some)}
        self._where_B = torch.tensor([where[row] for row in range(len(where))], device=device)

    def __call__(self, q_BHSD: torch.Tensor, layer: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """What each row finds in its block, and the logarithm of the softmax's sum there [B, H, S]."""
        keys, values = (x[self._some] for x in self._memory.layers[layer])
        (_, heads, S, D), (G, C) = q_BHSD.shape, keys.shape[:2]
        N, share = self._rows_GN.shape[1], heads // C
        q_GCMD = (
            q_BHSD[self._rows_GN]
            .view(G, N, C, share, S, D)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(G, C, share * N * S, D)
        )
        found_GCMD, sums_GCM = attend(q_GCMD, keys, values, scale=scale, mask=self._mask)
        found = found_GCMD.view(G, C, share, N, S, D).permute(0, 3, 1, 2, 4, 5).reshape(G * N, heads, S, D)
        sums = sums_GCM.view(G, C, share, N, S).permute(0, 3, 1, 2, 4).reshape(G * N, heads, S)
        return found[self._where_B], sums[self._where_B]


def padding(lengths: Sequence[int], keys: torch.Tensor) -> torch.Tensor | None:
    """What is added to scores [G, 1, 1, L]: -inf where a block is padded; None if none is."""
    if min(lengths) == keys.shape[2]:
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

    Returns: and the logarithm of the softmax's sum, float32 [G, H, M], by which parts are put together.
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


def together(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """What was found in several places, each weighed by its share of the softmax."""
    if len(parts) == 1:
        return parts[0][0]
    share_PBHS = torch.stack([sums for _, sums in parts]).softmax(dim=0)
    total = sum(found.float() * share[..., None] for (found, _), share in zip(parts, share_PBHS, strict=True))
    return torch.as_tensor(total).to(parts[0][0].dtype)
