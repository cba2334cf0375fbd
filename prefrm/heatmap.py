"""The win matrix in a terminal: a heat map where there is colour, an aligned table where there is not.

The figure with the images themselves is `prefrm.plots.win_matrix_figure`.
"""

import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from prefrm.errors import ConfigError
from prefrm.winmatrix import WinMatrix

__all__ = ["TerminalMatrix", "terminal_matrix"]

# Red, green and blue at p = 0, 1/2 and 1: orange loses and blue wins, for every kind of colour vision.
LOSES, EVEN, WINS = (179, 88, 6), (247, 246, 243), (33, 102, 172)
EIGHTHS = " ▏▎▍▌▋▊▉█"
INFERRED = "~"
BAR_CELLS = 10
NARROW_CELL, WIDE_CELL = 4, 5
LABEL_CELLS = 24


def terminal_matrix(matrix: WinMatrix, labels: Sequence[str] | None = None) -> "TerminalMatrix":
    """What `rich` prints for `matrix`: p as "row beats column", win rates, and why a pair has no number.

    `labels` name the rows, shortened to the room there is; the columns carry the candidates' indices.
    With colour or without, every cell says its number, followed by "~" if it was inferred; a pair that was
    neither judged nor inferred is "?".

    Raises:
        ConfigError: there is not one label for each candidate.
    """
    if labels is not None and len(labels) != matrix.size:
        raise ConfigError(f"{matrix.size} candidates need as many labels; received {len(labels)}")
    return TerminalMatrix(matrix, [""] * matrix.size if labels is None else list(labels))


class TerminalMatrix:
    """A renderable that looks at the console it is printed on; made by `terminal_matrix`."""

    def __init__(self, matrix: WinMatrix, labels: Sequence[str]) -> None:
        self._matrix = matrix
        self._labels = labels

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        matrix, rates = self._matrix, self._matrix.win_rate(on_missing="drop")
        colored = console.is_terminal and console.color_system is not None and not console.no_color
        index = len(str(matrix.size - 1))
        wanted = min(LABEL_CELLS, max(len(label) for label in self._labels))
        fixed = index + 2 + len("  not judged") + (BAR_CELLS + 1 if colored else 0)
        room = options.max_width - fixed
        cell = WIDE_CELL if room >= matrix.size * WIDE_CELL + wanted else NARROW_CELL
        names = max(0, min(wanted, room - matrix.size * cell))

        header = "".join(f"{n:>{cell - 1}} " for n in range(matrix.size))
        yield _line(Text(" " * (index + names + 2) + header + "  win rate", style="dim" if colored else ""))
        for i, label in enumerate(self._labels):
            row = Text(f"{i:>{index}} {_shortened(label, names):<{names}} ")
            row.append_text(Text().join(self._cell(i, j, cell, colored) for j in range(matrix.size)))
            row.append_text(_rate(rates, i, colored))
            yield _line(row)
        if matrix.inferred.any():
            yield Text(f"{INFERRED} inferred from the pairs that were judged")
        yield from (Text(f"? {note}") for note in self._notes())

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

    def _notes(self) -> list[str]:
        """Why something was neither judged nor inferred: one line for each candidate and each other pair."""
        matrix = self._matrix
        readable = np.array([not error for error in matrix.errors])
        silent = np.argwhere(np.triu(~matrix.known & readable[:, None] & readable[None, :]))
        return [
            f"{n}{f' ({label})' if label else ''}: {error}"
            for n, (label, error) in enumerate(zip(self._labels, matrix.errors, strict=True))
            if error
        ] + [f"{i} against {j}: {matrix.reason(int(i), int(j))}" for i, j in silent]


def _rate(rates: np.ndarray, i: int, colored: bool) -> Text:
    rate = float(rates[i])
    if math.isnan(rate):
        return Text("  not judged")
    text = Text(f"  {rate:.3f}", style="bold" if rate == np.nanmax(rates) else "")
    return text.append(f" {_bar(rate)}", style=f"not bold {_rgb(WINS)}") if colored else text


def _style(p: float) -> str:
    """White or black on the colour of p, whichever is easier to read."""
    end, share = (WINS, p * 2 - 1) if p >= 0.5 else (LOSES, 1 - p * 2)
    red, green, blue = (round(e + (x - e) * share) for e, x in zip(EVEN, end, strict=True))
    return f"{'#ffffff' if share > 0.6 else '#101010'} on {_rgb((red, green, blue))}"


def _rgb(color: tuple[int, int, int]) -> str:
    return f"rgb({color[0]},{color[1]},{color[2]})"


def _bar(rate: float) -> str:
    full, rest = divmod(round(rate * BAR_CELLS * 8), 8)
    return EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")


def _shortened(label: str, width: int) -> str:
    """The end of a label that is too long: of a file name it tells the most."""
    return label if len(label) <= width else label[len(label) - width :]


def _line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ignore"
    return text
