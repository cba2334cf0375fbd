"""The win matrix in a terminal: a heat map where there is colour, an aligned table where there is not.

A matrix that is wider than the terminal becomes a table of the candidates, best first. The figure with the
images themselves is `prefrm.plots.win_matrix_figure`.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from prefrm.display import ELLIPSIS, one_line, text_color
from prefrm.errors import ConfigError
from prefrm.rewards import ranks
from prefrm.winmatrix import Floats, WinMatrix, unjudged_reasons

__all__ = ["TerminalMatrix", "terminal_matrix"]

# Red, green and blue at p = 0, 1/2 and 1: orange loses and blue wins, for every kind of colour vision.
LOSES, EVEN, WINS = (179, 88, 6), (247, 246, 243), (33, 102, 172)
EIGHTHS = " ▏▎▍▌▋▊▉█"
INFERRED = "~"
BAR_CELLS = 10
NARROW_CELL, WIDE_CELL = 4, 5
# What a matrix leaves to the names: at least the one, and the other before its cells get wide.
LEAST_LABEL_CELLS, LABEL_CELLS = 8, 24
RATE_CELLS = len("  not judged")


def terminal_matrix(
    matrix: WinMatrix, labels: Sequence[str] | None = None, *, elsewhere: str = ""
) -> "TerminalMatrix":
    """The renderable of `rich` for `matrix`: p as "row beats column", win rates, the ranking, and why a pair
    has no number.

    With colour or without, every cell shows its number, followed by "~" if it was inferred; a pair that was
    neither judged nor inferred is "?". A matrix that does not fit into the console's width is replaced by a
    ranked table of the candidates.

    Args:
        labels: names of the rows, shortened to the room there is; the columns carry the candidates' indices.
        elsewhere: where a matrix that does not fit can be seen, such as "--json prints it".

    Raises:
        ConfigError: there is not one label for each candidate.
    """
    if labels is not None and len(labels) != matrix.size:
        raise ConfigError(f"{matrix.size} candidates need as many labels; received {len(labels)}")
    names = [""] * matrix.size if labels is None else [one_line(label) for label in labels]
    return TerminalMatrix(matrix, names, elsewhere)


class TerminalMatrix:
    """A renderable that adapts to the console it is printed on; made by `terminal_matrix`."""

    def __init__(self, matrix: WinMatrix, labels: Sequence[str], elsewhere: str) -> None:
        self._matrix = matrix
        self._labels = labels
        self._elsewhere = elsewhere
        self._rates = matrix.win_rate(on_missing="drop")
        self._index_cells = len(str(matrix.size - 1))
        self._longest = max(cell_len(label) for label in labels)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        colored = console.is_terminal and console.color_system is not None and not console.no_color
        size, width = self._matrix.size, options.max_width
        needed = self._fixed(False) + size * NARROW_CELL + min(self._longest, LEAST_LABEL_CELLS)
        if needed <= width:
            yield from self._heat_map(width, colored)
            yield self._ranking(width)
        else:
            yield from self._ranked_table(width, colored)
            where = f"; {self._elsewhere}" if self._elsewhere else ""
            yield Text(f"the {size} x {size} matrix needs {needed} columns, here are {width}{where}")
        if self._matrix.inferred.any():
            yield Text(f"{INFERRED} inferred from the pairs that were judged")
        names = [f"{n} ({label})" if label else str(n) for n, label in enumerate(self._labels)]
        if self._matrix.spread is not None:
            yield from _disagreement(self._matrix.spread, names)
        yield from (Text(f"? {one_line(note)}") for note in unjudged_reasons(self._matrix, names))

    def _fixed(self, bars: bool) -> int:
        """Columns beside the names and the cells of the matrix: indices, two spaces, win rates."""
        return self._index_cells + 2 + RATE_CELLS + (BAR_CELLS + 1 if bars else 0)

    def _heat_map(self, width: int, colored: bool) -> Iterator[Text]:
        size = self._matrix.size
        bars = colored and self._fixed(True) + size * NARROW_CELL + LEAST_LABEL_CELLS <= width
        room = width - self._fixed(bars)
        cell = WIDE_CELL if room >= size * WIDE_CELL + min(self._longest, LABEL_CELLS) else NARROW_CELL
        names = min(self._longest, room - size * cell)
        header = "".join(f"{n:>{cell - 1}} " for n in range(size))
        blank = " " * (self._index_cells + names + 2)
        yield _line(Text(f"{blank}{header}  win rate", style="dim" if colored else ""))
        for i, label in enumerate(self._labels):
            row = Text(f"{i:>{self._index_cells}} {_fitted(label, names)} ")
            row.append_text(Text().join(self._cell(i, j, cell, colored) for j in range(size)))
            yield _line(row.append_text(_rate(self._rates, i, colored, bars)))

    def _ranked_table(self, width: int, colored: bool) -> Iterator[Text]:
        """One line for each candidate, best first: its rank, index, name and win rate."""
        cells = self._index_cells
        bars = colored and self._fixed(True) + cells + 2 + min(self._longest, LABEL_CELLS) <= width
        names = max(0, min(self._longest, width - self._fixed(bars) - cells - 2))
        blank = " " * (names + 1)
        header = f"{'#':>{cells}}  {' ' * cells} {blank}  win rate"
        yield _line(Text(header, style="dim" if colored else ""))
        ranked = ranks(self._matrix)
        unranked = [n for n in range(self._matrix.size) if n not in ranked]
        for n in [*ranked, *unranked]:
            row = Text(f"{ranked.get(n, '?'):>{cells}}  {n:>{cells}} {_fitted(self._labels[n], names)} ")
            yield _line(row.append_text(_rate(self._rates, n, colored, bars)))

    def _ranking(self, width: int) -> Text:
        """The candidates, best first; by their indices alone where names would take several lines."""
        names = [f"{n} {label}".rstrip() for n, label in enumerate(self._labels)]
        line = self._chain(names)
        return Text(line if cell_len(line) <= width else self._chain([str(n) for n in range(len(names))]))

    def _chain(self, names: Sequence[str]) -> str:
        ranked = list(ranks(self._matrix).items())
        steps = [" = " if rank == before else " > " for (_, before), (_, rank) in pairwise(ranked)]
        parts = [f"{step}{names[n]}" for step, (n, _) in zip(["", *steps], ranked, strict=False)]
        return f"ranking: {''.join(parts) or 'none, as nothing was judged'}"

    def _cell(self, i: int, j: int, width: int, colored: bool) -> Text:
        if not self._matrix.known[i, j]:
            return Text(f"{'?':>{width - 1}} ")
        if i == j:
            return Text(f"{'-':>{width - 1}} ", style="dim" if colored else "")
        p = float(self._matrix.p[i, j])
        number = f"{p:.2f}"[:-1] if p >= 0.995 else f"{p:.2f}"[1:]
        inferred = bool(self._matrix.inferred[i, j])
        shown = f"{number:>{width - 1}}{INFERRED if inferred else ' '}"
        return Text(shown, style=_style(p) + (" italic" if inferred else "") if colored else "")


def _rate(rates: Floats, i: int, colored: bool, bars: bool) -> Text:
    rate = float(rates[i])
    if math.isnan(rate):
        return Text("  not judged")
    best = colored and rate == np.nanmax(rates)
    text = Text(f"  {rate:.3f}", style="bold" if best else "")
    return text.append(f" {_bar(rate)}", style=f"not bold {_rgb(WINS)}") if bars else text


def _style(p: float) -> str:
    """Black or white on the colour of p, whichever is easier to read."""
    end, share = (WINS, p * 2 - 1) if p >= 0.5 else (LOSES, 1 - p * 2)
    red, green, blue = (round(e + (x - e) * share) for e, x in zip(EVEN, end, strict=True))
    return f"{text_color((red / 255, green / 255, blue / 255))} on {_rgb((red, green, blue))}"


def _rgb(color: tuple[int, int, int]) -> str:
    return f"rgb({color[0]},{color[1]},{color[2]})"


def _bar(rate: float) -> str:
    full, rest = divmod(round(rate * BAR_CELLS * 8), 8)
    return EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")


def _fitted(label: str, cells: int) -> str:
    """`label` padded to a width in cells; of a longer one its end, where file names differ most."""
    if cell_len(label) > cells:
        while label and cell_len(label) > cells - 1:
            label = label[1:]
        label = f"{ELLIPSIS}{label}"[:cells]
    return label + " " * (cells - cell_len(label))


def _disagreement(spread: Floats, names: Sequence[str]) -> Iterator[Text]:
    """The pair on which the judges of an ensemble differ most, by their spread [K, K]."""
    pairs = [(float(spread[i, j]), i, j) for i, j in combinations(range(len(names)), 2)]
    if known := [pair for pair in pairs if not math.isnan(pair[0])]:
        most, i, j = max(known, key=lambda pair: pair[0])
        yield Text(f"largest spread among the judges: {most:.2f}, {names[i]} against {names[j]}")


def _line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ignore"
    return text
