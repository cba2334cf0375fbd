"""Rows of one group or of many, cut into passes of the language model, and the blocks that are kept of them.

Rows that attend to the same blocks make passes together. A group that is alone has passes as large as its own
rows. Where groups share passes, these have few shapes, for a compiler and for CUDA graphs, and are filled up
with repeats of a row. If what else is in a pass must change no bit of a row, every pass has the one shape of
its rows' length, and so has all attention to blocks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from prefrm.engine.attention import KVBlocks, Shared
from prefrm.engine.compilation import PassGraphs
from prefrm.engine.plan import enough_rows, fixed_shape, runs_of_rows
from prefrm.engine.reading import Features, Rows, keep_rows, read_rows
from prefrm.judge import Judge, Name, Segment
from prefrm.judge.transfers import to_device

__all__ = ["Blocks", "Passes", "Segments"]

# Rows, and tokens of rows, whose attention to one block is batched (`Shared`): few more rows of a group share
# a block.
TILE_ROWS, TILE_TOKENS = 16, 128
Blocks = Mapping[Name, tuple[KVBlocks, int]]
"""Where the keys and values of each segment are."""
Segments = Mapping[Name, Segment]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Rows of one pass.

    Attributes:
        rows: by their places.
        fill: how many more rows the pass has.
        length: to which they are padded; 0 for the longest of them.
        tile: of `Shared`.
    """

    rows: Sequence[int]
    fill: int = 0
    length: int = 0
    tile: int | None = None


class Passes:
    """Runs rows through a judge's language model.

    Args:
        judge: in evaluation mode.
        tokens: how many run through the language model at once, or one row if that has more.
        share: whether passes have fixed shapes, so that rows of any groups may share them.
        full: whether such passes have one number of rows for each length; if not, they have that, half of it,
            a quarter and so on, as few as there are rows.
        graphs: of such passes, or None.
        before_each: called before every pass.
    """

    def __init__(
        self,
        judge: Judge,
        tokens: int,
        *,
        share: bool,
        full: bool = True,
        graphs: PassGraphs | None = None,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self.share = share
        self._full = full
        self._graphs = graphs if share else None
        self._before_each = before_each
        self._judge = judge
        self._tokens = tokens

    def keep(self, segments: Segments, blocks: Blocks, features: Features) -> Blocks:
        """The keys and values of segments, to which later ones attend; they attend to `blocks`."""
        names, rows = list(segments), list(segments.values())
        found: dict[Name, tuple[KVBlocks, int]] = {}
        for runs in self._runs(rows, blocks):
            places = [n for run in runs for n in run.rows]
            length = runs[0].length or max(len(rows[n]) for n in places)
            parts = (
                keep_rows(self._judge, *self._inputs(rows, run, blocks), features, self._graphs)
                for run in runs
            )
            counts = [len(run.rows) for run in runs]
            kept = KVBlocks.collected(parts, counts=counts, length=length)
            found |= {names[n]: (kept, place) for place, n in enumerate(places)}
        return found

    def read(self, rows: Sequence[Segment], blocks: Blocks, features: Features) -> torch.Tensor:
        """The readings [R, ...] of the last positions of each row, in order."""
        readings: list[torch.Tensor] = []
        order: list[int] = []
        for runs in self._runs(rows, blocks):
            for run in runs:
                inputs = self._inputs(rows, run, blocks)
                found = read_rows(self._judge, *inputs, features, fixed=self.share, graphs=self._graphs)
                readings.append(found[: len(run.rows)])
                order += run.rows
        if not readings:
            return torch.empty(0)
        found = torch.cat(readings)
        ordered = torch.empty_like(found)
        ordered[to_device(order, found.device)] = found
        return ordered

    def _runs(self, rows: Sequence[Segment], blocks: Blocks) -> Iterator[list[_Run]]:
        """Passes over all rows; those of a list have one length and attend to the same blocks."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for n, row in enumerate(rows):
            seen = tuple(id(blocks[name][0]) for name in row.sees)
            length = fixed_shape(len(row), self._tokens).length if self.share else 0
            alike.setdefault((length, *seen), []).append(n)
        for (length, *_), places in alike.items():
            if length:
                yield list(self._fixed(places, length))
            else:
                runs = runs_of_rows([len(rows[n]) for n in places], self._tokens)
                yield [_Run(rows=places[run.start : run.stop]) for run in runs]

    def _fixed(self, places: Sequence[int], length: int) -> Iterator[_Run]:
        most = fixed_shape(length, self._tokens).rows
        for start in range(0, len(places), most):
            some = places[start : start + most]
            rows = most if self._full else enough_rows(most, len(some))
            tile = min(rows, TILE_ROWS, max(1, TILE_TOKENS // length))
            yield _Run(rows=some, fill=rows - len(some), length=length, tile=tile)

    def _inputs(self, rows: Sequence[Segment], run: _Run, blocks: Blocks) -> tuple[Rows, list[Shared]]:
        """The rows of a pass, and what they attend to."""
        self._before_each()
        some = [rows[n] for n in run.rows]
        some += [some[0]] * run.fill
        seen = []
        for names in zip(*(row.sees for row in some), strict=True):
            seen.append(Shared.of(blocks[names[0]][0], [blocks[name][1] for name in names], tile=run.tile))
        # Padding is masked and never read.
        return Rows.of(some, self._judge.processor.layout.pad_id, run.length), seen
