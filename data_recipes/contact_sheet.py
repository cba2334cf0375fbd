"""A picture of preference groups: a row for each, with its prompt, context, candidates and their labels."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from prefrm.display import one_line
from prefrm.errors import MediaError
from prefrm.plots.candidates import first_lines, picture
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import DPI, EDGE, INK, MISSING, SOFT, new_figure
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import Candidate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

# In pixels: the side of an image, what is around it, and a line of text.
TILE, MARGIN, LINE = 192, 12, 24
# Bounds on the width, in images: the lower one leaves room for a prompt.
FEWEST_COLUMNS, MOST_COLUMNS = 4, 12
# Width of a candidate, in images: a video is a strip of frames, a text has lines.
SPANS = {"image": 1, "video": 3, "text": 2}
MOST_CONTEXT = 2
PROMPT_LINES, TEXT_LINES = 2, 7
PROMPT, CAPTION = Lettering(points=8.5), Lettering(points=7.5)


class _Cell(NamedTuple):
    """A candidate or a context image, the text below it, and its width in images."""

    content: Candidate
    caption: str
    span: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.span * (TILE + MARGIN) - MARGIN


def contact_sheet(groups: Sequence[PreferenceGroup]) -> "Figure":
    """The figure; `savefig` writes it, at one image pixel a pixel of its own resolution.

    "wins" is the mean probability, over the comparisons that name a candidate, that it is preferred. A video
    is its first, middle and last frame, a text its first lines. An image or a video that is missing or
    unreadable is a grey tile that says so. Of a group that is wider than 12 images, the first candidates are
    drawn; of a context, the first two images.
    """
    columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, *(sum(c.span for c in _cells(g)) for g in groups)))
    row = TILE + (PROMPT_LINES + 2) * LINE + MARGIN
    width, height = MARGIN + columns * (TILE + MARGIN), len(groups) * row + MARGIN
    figure = new_figure(width / DPI, height / DPI)
    for n, group in enumerate(groups):
        _draw_group(figure, group, height - MARGIN - n * row, (width - 2 * MARGIN) / DPI)
    return figure


def _cells(group: PreferenceGroup) -> list[_Cell]:
    """The context and the candidates that are drawn."""
    cells = [_Cell(image, "context", 1) for image in group.context[:MOST_CONTEXT]]
    span = SPANS[group.group().kind]
    shown = (MOST_COLUMNS - len(cells)) // span
    return cells + [
        _Cell(candidate, _known(group, k), span) for k, candidate in enumerate(group.candidates[:shown])
    ]


def _draw_group(figure: "Figure", group: PreferenceGroup, top: int, room: float) -> None:
    """One row, whose upper edge is `top` pixels above the figure's lower one; text is `room` inches wide."""
    for line in PROMPT.wrap(group.prompt, room, PROMPT_LINES):
        top -= LINE
        _write(figure, line, PROMPT, MARGIN, top, INK)
    top -= LINE
    cells = _cells(group)
    _write(figure, CAPTION.fit(", ".join(_facts(group, cells)), room), CAPTION, MARGIN, top, SOFT)
    top -= TILE + LINE // 4
    left = MARGIN
    for cell in cells:
        tile, lines = _tile(cell)
        figure.figimage(tile, left, top, origin="upper")
        for n, line in enumerate(lines, 1):
            _write(figure, line, CAPTION, left + MARGIN, top + TILE - n * LINE - MARGIN // 2, INK)
        caption = CAPTION.fit(cell.caption, (cell.width + MARGIN / 2) / DPI)
        _write(figure, caption, CAPTION, left, top - LINE, INK)
        left += cell.width + MARGIN


def _facts(group: PreferenceGroup, cells: Sequence[_Cell]) -> Iterator[str]:
    yield group.id
    if group.criterion:
        yield f"by {group.criterion}"
    context = min(len(group.context), MOST_CONTEXT)
    if context < len(group.context):
        yield f"the first {context} of {len(group.context)} context images"
    if (shown := len(cells) - context) < len(group.candidates):
        yield f"the first {shown} of {len(group.candidates)} candidates"


def _write(figure: "Figure", text: str, lettering: Lettering, x: float, y: float, color: str) -> None:
    width, height = (side * DPI for side in figure.get_size_inches())
    place = (x / width, (y + LINE / 4) / height)
    figure.text(*place, one_line(text), fontsize=lettering.points, color=color, va="baseline")


def _tile(cell: _Cell) -> tuple[np.ndarray, list[str]]:
    """The content in the middle of uint8 [TILE, width, 3], or a grey tile, and the text to write on it."""
    tile = Image.new("RGB", (cell.width, TILE), MISSING)
    if cell.content is None:
        return np.asarray(tile), ["missing"]
    if isinstance(cell.content, str):
        lines = first_lines(cell.content, CAPTION, (cell.width - 2 * MARGIN) / DPI, TEXT_LINES)
        tile = Image.new("RGB", tile.size, "white")
        ImageDraw.Draw(tile).rectangle((0, 0, cell.width - 1, TILE - 1), outline=EDGE)
        return np.asarray(tile), lines
    try:
        shown = picture(cell.content)
    except MediaError:
        return np.asarray(tile), ["unreadable"]
    scale = min(TILE / shown.height, cell.width / shown.width)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    # Small pictures are shown pixel by pixel, large ones smoothly.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    tile.paste(shown.resize(size, method), ((cell.width - size[0]) // 2, (TILE - size[1]) // 2))
    ImageDraw.Draw(tile).rectangle((0, 0, cell.width - 1, TILE - 1), outline=EDGE)
    return np.asarray(tile), []


def _known(group: PreferenceGroup, k: int) -> str:
    """What the record holds of candidate k."""
    wins = [c.p if c.i == k else 1 - c.p for c in group.comparisons if k in (c.i, c.j)]
    parts = [f"wins {sum(wins) / len(wins):.2f}"] if wins else ["not compared"]
    if group.quality is not None:
        parts.append(f"quality {group.quality[k]:.2f}")
    return "  ".join(parts)
