"""Attention in parts against one softmax over everything, and blocks that rows share."""

import pytest
import torch

from prefrm.engine.attention import KVBlocks, Shared
from prefrm.engine.reading import LastPositions, Reading
from prefrm.judge.kernels import attend

LAYERS, HEADS, SHARED_HEADS, SIZE = 2, 4, 2, 8
SCALE = SIZE**-0.5


def memory(*lengths: int, seed: int = 0) -> KVBlocks:
    """Blocks of those lengths, whatever stands in the padding."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * LAYERS, len(lengths), SHARED_HEADS, max(lengths), SIZE)
    return KVBlocks(stacked_FGCLD=torch.randn(shape, generator=generator), lengths=lengths)


def queries(rows: int, length: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(rows, heads, length, SIZE, generator=generator)
        for heads in (HEADS, SHARED_HEADS, SHARED_HEADS)
    )


def whole(row: int, q, k, v, blocks: list[tuple[KVBlocks, int]], layer: int) -> torch.Tensor:
    """One row's attention, by one softmax over its blocks and itself: [S, H, D]."""
    keys, values = [], []
    for some, place in blocks:
        length = some.lengths[place]
        keys.append(some.stacked_FGCLD[2 * layer, place, :, :length])
        values.append(some.stacked_FGCLD[2 * layer + 1, place, :, :length])
    before = sum(key.shape[1] for key in keys)
    key = torch.cat([*keys, k[row]], dim=1).repeat_interleave(HEADS // SHARED_HEADS, dim=0)
    value = torch.cat([*values, v[row]], dim=1).repeat_interleave(HEADS // SHARED_HEADS, dim=0)
    scores = q[row] @ key.transpose(-1, -2) * SCALE
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(before + 1)
    return (scores.masked_fill(ahead, float("-inf")).softmax(dim=-1) @ value).transpose(0, 1)


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("places", [[0, 0, 0, 0], [0, 1, 2, 0], [2, 2, 0, 2]])
def test_parts_together_are_one_softmax(layer: int, places: list[int]):
    """Blocks of several lengths, that some rows share, unevenly, and others do not use."""
    prefix, slots = memory(3), memory(5, 2, 7, seed=5)
    q, k, v = queries(4, 6)
    active = Reading([Shared.of(prefix, [0] * 4), Shared.of(slots, places)])
    found = active(layer, q, k, v, SCALE)
    wanted = [whole(row, q, k, v, [(prefix, 0), (slots, places[row])], layer) for row in range(4)]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-6, rtol=0)


@pytest.mark.parametrize("tile", [1, 2, 3, 9])
def test_tiles_are_one_softmax_in_products_of_one_shape(tile: int, monkeypatch):
    """However many rows share a block."""
    prefix, slots = memory(3), memory(5, 2, 7, seed=5)
    q, k, v = queries(4, 6)
    shapes = []

    def watched(q, k, v, **settings):
        shapes.append((q.shape, k.shape))
        return attend(q, k, v, **settings)

    monkeypatch.setattr("prefrm.engine.attention.attend", watched)
    for places in ([0, 1, 2, 0], [2, 2, 0, 2], [1, 1, 1, 1]):
        seen = [Shared.of(prefix, [0] * 4, tile=tile), Shared.of(slots, places, tile=tile)]
        found = Reading(seen)(0, q, k, v, SCALE)
        wanted = [whole(row, q, k, v, [(prefix, 0), (slots, places[row])], 0) for row in range(4)]
        torch.testing.assert_close(found, torch.stack(wanted), atol=1e-6, rtol=0)
    assert {q for q, _ in shapes} == {(-(-4 // tile), SHARED_HEADS, 2 * tile * 6, SIZE)}
    assert {k for _, k in shapes} == {(-(-4 // tile), SHARED_HEADS, length, SIZE) for length in (3, 7)}


def test_a_row_by_itself_is_causal():
    q, k, v = queries(2, 6)
    found = Reading([])(0, q, k, v, SCALE)
    torch.testing.assert_close(found, torch.stack([whole(row, q, k, v, [], 0) for row in range(2)]))


@pytest.mark.parametrize("ends", [[5, 5, 5, 5], [5, 2, 0, 3]])
def test_where_one_position_is_read_it_is_that_of_the_whole(ends: list[int]):
    """Rows of one length or of several, padded."""
    prefix, slots, places = memory(3), memory(5, 2, 7, seed=5), [0, 1, 2, 0]
    q, k, v = queries(4, 6)
    seen = [Shared.of(prefix, [0] * 4), Shared.of(slots, places)]
    # Of another layer, all positions are computed.
    other, read = (LastPositions.of([e + 1 for e in ends], 6, layer, q, fixed=True) for layer in (1, 0))
    everywhere, there = (Reading(seen, read=read)(0, q, k, v, SCALE) for read in (other, read))
    for row, end in enumerate(ends):
        torch.testing.assert_close(there[row, end], everywhere[row, end], atol=1e-6, rtol=0)
    assert int(there.ne(0).flatten(2).any(dim=2).sum()) == 4


@pytest.mark.parametrize("ends", [[5, 5, 5, 5], [5, 2, 3, 3]])
@pytest.mark.parametrize("fixed", [False, True])
def test_where_several_last_positions_are_read_each_sees_those_before_it(ends: list[int], fixed: bool):
    prefix, slots, places = memory(3), memory(5, 2, 7, seed=5), [0, 1, 2, 0]
    q, k, v = queries(4, 6)
    seen = [Shared.of(prefix, [0] * 4), Shared.of(slots, places)]
    read = LastPositions.of([end + 1 for end in ends], 6, 0, q, count=3, fixed=fixed)
    everywhere, there = Reading(seen)(0, q, k, v, SCALE), Reading(seen, read=read)(0, q, k, v, SCALE)
    for row, end in enumerate(ends):
        last = slice(end - 2, end + 1)
        torch.testing.assert_close(there[row, last], everywhere[row, last], atol=1e-6, rtol=0)
    assert int(there.ne(0).flatten(2).any(dim=2).sum()) == 4 * 3


def test_blocks_are_collected_part_by_part():
    short, long = memory(2, 3), memory(6, 4, seed=9)
    collected = KVBlocks.collected(
        iter((list(some.stacked_FGCLD), some.lengths) for some in (short, long)), counts=[2, 2], length=8
    )
    assert collected.lengths == (2, 3, 6, 4) and len(collected) == 4
    for place, (some, n) in enumerate(((short, 0), (short, 1), (long, 0), (long, 1))):
        length = collected.lengths[place]
        mine, theirs = collected.stacked_FGCLD[:, place], some.stacked_FGCLD[:, n]
        assert mine.shape[2] == 8
        assert torch.equal(mine[:, :, :length], theirs[:, :, :length])


@pytest.mark.parametrize(("places", "copied"), [([0, 1, 3, 4], False), ([1, 2], False), ([0, 9], True)])
def test_blocks_are_read_where_they_stand_unless_few_are_used(places: list[int], copied: bool, monkeypatch):
    """A gap, such as that of an image that meets all but itself, costs no copy."""
    blocks, seen = memory(*range(1, 11)), []

    def watched(q, k, v, **settings):
        seen.append(k)
        return attend(q, k, v, **settings)

    monkeypatch.setattr("prefrm.engine.attention.attend", watched)
    q, k, v = queries(len(places), 3)
    active = Reading([Shared.of(blocks, places)])
    wanted = [whole(row, q, k, v, [(blocks, place)], 0) for row, place in enumerate(places)]
    torch.testing.assert_close(active(0, q, k, v, SCALE), torch.stack(wanted), atol=1e-6, rtol=0)
    stands = blocks.stacked_FGCLD.untyped_storage().data_ptr()
    assert (seen[-1].untyped_storage().data_ptr() != stands) == copied
