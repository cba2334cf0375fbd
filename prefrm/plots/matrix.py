"""The win matrix as a picture: a heat map with the candidates along both axes.

Everything is drawn in one coordinate system whose unit is a cell, so that candidates, cells and win
rates line up at every group size. Of a large group, the best candidates are drawn.

Shapes: K candidates of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prefrm.display import one_line, text_color
from prefrm.errors import DataError, MediaError
from prefrm.plots.candidates import first_lines, picture
from prefrm.plots.heading import Heading, write_lines
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import (
    EDGE,
    GRID,
    HATCH,
    INK,
    LOSS_TO_WIN,
    MISSING,
    SERIES,
    SOFT,
    loss_to_win,
    new_figure,
)
from prefrm.winmatrix import Candidate, Floats, WinMatrix, unjudged_reasons

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["win_matrix_figure"]

THUMBNAIL_PIXELS = 256
# The numbers in more cells than these are too small to read where the figure is as wide as a screen.
MOST_DRAWN = 24
# In cells: what stands left of and above the matrix (names, with candidates or alone), right of it
# (win rates) and below it.
BEFORE, BEFORE_NAMES_ALONE, AFTER, BELOW = 1.35, 0.42, 1.65, 0.05
# In cells: the sides of a cell that was judged and of one that was inferred.
JUDGED_SIDE, INFERRED_SIDE = 0.96, 0.62
# In inches: margins, a line of the legend and of the notes.
MARGIN, LEGEND_LINE, NOTE_LINE = 0.22, 0.36, 0.17
MOST_NOTES = 8
NOTE = Lettering(points=7.5)
# A text in a cell, and one line of it in inches.
TEXT, TEXT_LINE = Lettering(points=6), 0.1


def win_matrix_figure(
    matrix: WinMatrix,
    candidates: Sequence[Candidate] | None = None,
    prompt: str = "",
    *,
    criterion: str = "",
    context: Sequence[bytes] = (),
    labels: Sequence[str] | None = None,
    most: int = MOST_DRAWN,
) -> "Figure":
    """The heat map of `matrix`: row beats column, its candidates along both axes, win rates right.

    Args:
        matrix: K x K; an inferred p stands in a smaller cell and in italics; a pair that was neither judged
            nor inferred is grey and hatched, with its reason below.
        candidates: K encoded images or videos, or texts; None draws none. A video is a strip of three frames,
            a text its first lines; what is missing or cannot be read is a grey box.
        prompt: the title, of which three lines are shown.
        criterion: by what the candidates were compared, named below the title.
        context: encoded images that belong to the prompt, drawn above the matrix, as many as fit in a row.
        labels: K names for the candidates, such as file names; their indices if None.
        most: how many candidates are drawn. Of more, those with the highest win rates are, which a note
            says; a win rate is over all K in any case.

    Raises:
        DataError: there are not K candidates or not K labels.
    """
    for what, given in (("candidates", candidates), ("labels", labels)):
        if given is not None and len(given) != matrix.size:
            raise DataError(
                f"{what} of a matrix of {matrix.size} must be {matrix.size}; received {len(given)}"
            )
    names = [str(n) for n in range(matrix.size)] if labels is None else [one_line(label) for label in labels]
    notes = unjudged_reasons(matrix, names)
    drawn = _Drawn.of(matrix, candidates, names, most)
    if (size := len(drawn.indices)) < matrix.size:
        rest = f"{size} of {matrix.size} candidates are drawn: those with the highest win rates over all"
        notes.insert(0, rest)
    cell = float(np.clip(8.4 / (size + 2.6), 0.52, 1.15))
    before = BEFORE_NAMES_ALONE if candidates is None else BEFORE
    width = max(cell * (before + size + AFTER), 4.4)
    heading = Heading.of(prompt, width, criterion=criterion, context=context)
    lines = [NOTE.fit(note, width) for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"and {len(notes) - MOST_NOTES} more")
    below = MARGIN + NOTE_LINE * len(lines) + LEGEND_LINE
    height = cell * (before + size + BELOW)
    total = (width + 2 * MARGIN, below + height + heading.height + MARGIN)

    figure = new_figure(*total)
    axes = figure.add_axes((MARGIN / total[0], below / total[1], width / total[0], height / total[1]))
    _draw_cells(axes, drawn.matrix, cell)
    _draw_candidates(axes, drawn, cell)
    _draw_win_rates(axes, drawn.rates, cell)
    axes.set(xlim=(-before, width / cell - before), ylim=(size + BELOW, -before), aspect="equal", anchor="W")
    axes.axis("off")
    heading.draw(figure, MARGIN, total[1] - MARGIN)
    write_lines(figure, lines, NOTE, MARGIN, below - LEGEND_LINE - NOTE_LINE / 2, NOTE_LINE, SOFT)
    _draw_legend(figure, below - LEGEND_LINE / 2, with_inferred=bool(drawn.matrix.inferred.any()))
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The candidates that are drawn: their indices in the group, their matrix, and their win rates in it."""

    indices: Sequence[int]
    matrix: WinMatrix
    rates: Floats
    names: Sequence[str]
    candidates: Sequence[Candidate] | None

    @classmethod
    def of(
        cls, matrix: WinMatrix, candidates: Sequence[Candidate] | None, names: Sequence[str], most: int
    ) -> "_Drawn":
        """All candidates, or the `most` of the highest win rates, in the order of the group."""
        rates = matrix.win_rate(on_missing="drop")
        # NaN, of the unjudged, comes last.
        indices = sorted(np.argsort(-rates, kind="stable")[:most].tolist())
        return cls(
            indices=indices,
            matrix=matrix.subset(indices),
            rates=rates[indices],
            names=[names[n] for n in indices],
            candidates=None if candidates is None else [candidates[n] for n in indices],
        )

    def labels(self, lettering: Lettering, room: float) -> list[str]:
        """The ends of names, as wide as `room`, or indices where ends do not tell the names apart."""
        short = [lettering.fit(name, room, keep="end") for name in self.names]
        return short if len(set(short)) == len(set(self.names)) else [str(n) for n in self.indices]


def _draw_cells(axes: "Axes", matrix: WinMatrix, cell: float) -> None:
    scale = loss_to_win()
    for i, j in np.ndindex(matrix.size, matrix.size):
        p = float(matrix.p[i, j])
        if not matrix.known[i, j]:
            _box(axes, j, i, JUDGED_SIDE, face=MISSING, edge=EDGE, hatch=HATCH)
        elif i == j:
            _box(axes, j, i, JUDGED_SIDE, face="white", edge=GRID)
        else:
            inferred = bool(matrix.inferred[i, j])
            face = scale(p)
            _box(axes, j, i, INFERRED_SIDE if inferred else JUDGED_SIDE, face=face)
            axes.text(
                j + 0.5,
                i + 0.5,
                _short(p),
                ha="center",
                va="center",
                fontsize=min(13.0, 15.5 * cell),
                style="italic" if inferred else "normal",
                color=text_color(face[:3]),
            )


def _draw_candidates(axes: "Axes", drawn: _Drawn, cell: float) -> None:
    lettering = Lettering(points=min(9.0, 11 * cell))
    text: dict[str, Any] = {"fontsize": lettering.points, "color": INK, "ha": "center", "va": "center"}
    where = 0.2 if drawn.candidates is None else 1.19
    for n, short in enumerate(drawn.labels(lettering, 0.92 * cell)):
        axes.text(-where, n + 0.5, short, rotation=90 if len(short) > 2 else 0, **text)
        axes.text(n + 0.5, -where, short, **text)
        if drawn.candidates is not None:
            shown = _shown(drawn.candidates[n], cell)
            for x, y in ((-1.04, float(n)), (float(n), -1.04)):
                _draw_candidate(axes, shown, x, y)


def _shown(candidate: Candidate, cell: float) -> "npt.NDArray[np.uint8] | list[str] | None":
    """A candidate as it is drawn in a cell of that many inches: pixels, lines of text, or neither."""
    if isinstance(candidate, str):
        return first_lines(candidate, TEXT, 0.84 * cell, int(0.86 * cell / TEXT_LINE))
    return _thumbnail(candidate)


def _draw_candidate(
    axes: "Axes", shown: "npt.NDArray[np.uint8] | list[str] | None", x: float, y: float
) -> None:
    if shown is None:
        _box(axes, x, y, 0.92, face=MISSING, edge=EDGE, hatch=HATCH)
        return
    if isinstance(shown, list):
        lines = "\n".join(shown)
        axes.text(x + 0.08, y + 0.08, lines, fontsize=TEXT.points, color=INK, va="top", linespacing=1.1)
    else:
        axes.imshow(shown, extent=(x + 0.04, x + 0.96, y + 0.96, y + 0.04), interpolation="antialiased")
    _box(axes, x, y, 0.92, face="none", edge=EDGE)


def _draw_win_rates(axes: "Axes", rates: Floats, cell: float) -> None:
    from matplotlib.patches import Rectangle

    left = len(rates) + 0.22
    best = np.nanmax(rates) if np.isfinite(rates).any() else np.nan
    axes.text(left, -0.08, "win rate", fontsize=min(9.0, 11 * cell), color=SOFT, va="bottom")
    for n, rate in enumerate(rates):
        judged = bool(np.isfinite(rate))
        axes.add_patch(Rectangle((left, n + 0.62), 1.3, 0.16, facecolor=GRID))
        if judged:
            axes.add_patch(Rectangle((left, n + 0.62), 1.3 * float(rate), 0.16, facecolor=SERIES[0]))
        axes.text(
            left,
            n + 0.53,
            f"{rate:.3f}" if judged else "not judged",
            fontsize=min(11.0, 13 * cell) if judged else min(8.0, 10 * cell),
            weight="bold" if rate == best else "normal",
            color=INK if judged else SOFT,
            va="bottom",
        )


def _draw_legend(figure: "Figure", y: float, *, with_inferred: bool) -> None:
    """The colour scale, centred at y inches, with what its ends mean and what the sizes of a cell do."""
    width, height = (float(x) for x in figure.get_size_inches())
    text: dict[str, Any] = {"fontsize": 8, "color": SOFT, "va": "center"}
    figure.text(MARGIN / width, y / height, "row loses", **text)
    axes = figure.add_axes(((MARGIN + 0.66) / width, (y - 0.06) / height, 1.5 / width, 0.12 / height))
    axes.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap=loss_to_win())
    axes.axis("off")
    figure.text((MARGIN + 2.24) / width, y / height, "row wins", **text)
    if not with_inferred:
        return
    for left, side, word in ((3.0, JUDGED_SIDE, "judged"), (3.76, INFERRED_SIDE, "inferred")):
        key = figure.add_axes(((MARGIN + left) / width, (y - 0.1) / height, 0.2 / width, 0.2 / height))
        _box(key, 0, 0, side, face=LOSS_TO_WIN[-3])
        key.axis("off")
        style = "italic" if word == "inferred" else "normal"
        figure.text((MARGIN + left + 0.24) / width, y / height, word, style=style, **text)


def _box(
    axes: "Axes", x: float, y: float, side: float, *, face: Any, edge: str = "none", hatch: str | None = None
) -> None:
    """A square of `side` cells in the middle of the cell whose corner is (x, y)."""
    from matplotlib.patches import Rectangle

    gap = (1 - side) / 2
    axes.add_patch(
        Rectangle((x + gap, y + gap), side, side, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.6)
    )


def _thumbnail(data: bytes | None) -> npt.NDArray[np.uint8] | None:
    """The picture as uint8 [S, S, 3], padded to a square with white; None if it cannot be read."""
    try:
        image = picture(data or b"")
    except MediaError:
        return None
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    square = np.full((max(height, width), max(height, width), 3), 255, dtype=np.uint8)
    top, left = (square.shape[0] - height) // 2, (square.shape[0] - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _short(p: float) -> str:
    """A probability in the least space: .50, 1.00."""
    text = f"{p:.2f}"
    return text.removeprefix("0")
