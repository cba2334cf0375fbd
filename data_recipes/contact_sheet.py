"""A picture of preference groups: a row for each, with its prompt, its candidates and their labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from prefrm import media
from prefrm.display import one_line
from prefrm.errors import MediaError
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import DPI, EDGE, INK, MISSING, SOFT, new_figure
from prefrm.records import PreferenceGroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

# In pixels: the side of a candidate, what is around it, and a line of text.
TILE, MARGIN, LINE = 192, 12, 24
# Bounds on the width, in candidates: the lower one leaves room for a prompt.
FEWEST_COLUMNS, MOST_COLUMNS = 4, 12
PROMPT_LINES = 2
PROMPT, CAPTION = Lettering(points=8.5), Lettering(points=7.5)


def contact_sheet(groups: Sequence[PreferenceGroup]) -> "Figure":
    """The figure; `savefig` writes it, at one image pixel a pixel of its own resolution.

    "wins" is the mean probability, over the comparisons that name a candidate, that it is preferred. An
    image that is missing or unreadable is a grey tile that says so. Of a group of more than 12, the first 12
    candidates are drawn.
    """
    columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, *(len(group.candidates) for group in groups)))
    row = TILE + (PROMPT_LINES + 2) * LINE + MARGIN
    width, height = MARGIN + columns * (TILE + MARGIN), len(groups) * row + MARGIN
    figure = new_figure(width / DPI, height / DPI)
    for n, group in enumerate(groups):
        _draw_group(figure, group, height - MARGIN - n * row, (width - 2 * MARGIN) / DPI)
    return figure


def _draw_group(figure: "Figure", group: PreferenceGroup, top: int, room: float) -> None:
    """One row, whose upper edge is `top` pixels above the figure's lower one; text is `room` inches wide."""
    for line in PROMPT.wrap(group.prompt, room, PROMPT_LINES):
        top -= LINE
        _write(figure, line, PROMPT, MARGIN, top, INK)
    top -= LINE
    shown = min(len(group.candidates), MOST_COLUMNS)
    more = (
        "" if shown == len(group.candidates) else f", the first {shown} of {len(group.candidates)} candidates"
    )
    _write(figure, CAPTION.fit(f"{group.id}{more}", room), CAPTION, MARGIN, top, SOFT)
    top -= TILE + LINE // 4
    for k, image in enumerate(group.group().encoded[:shown]):
        left = MARGIN + k * (TILE + MARGIN)
        tile, problem = _tile(image)
        figure.figimage(tile, left, top, origin="upper")
        if problem:
            _write(figure, problem, CAPTION, left + MARGIN, top + TILE - LINE - MARGIN, INK)
        caption = CAPTION.fit(_known(group, k), (TILE + MARGIN / 2) / DPI)
        _write(figure, caption, CAPTION, left, top - LINE, INK)


def _write(figure: "Figure", text: str, lettering: Lettering, x: float, y: float, color: str) -> None:
    width, height = (side * DPI for side in figure.get_size_inches())
    place = (x / width, (y + LINE / 4) / height)
    figure.text(*place, one_line(text), fontsize=lettering.points, color=color, va="baseline")


def _tile(image: bytes | None) -> tuple[np.ndarray, str]:
    """The image in the middle of uint8 [TILE, TILE, 3], or a grey tile and why the image is not there."""
    tile = Image.new("RGB", (TILE, TILE), MISSING)
    if image is None:
        return np.asarray(tile), "missing"
    try:
        picture = media.decode(image)
    except MediaError:
        return np.asarray(tile), "unreadable"
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Small pictures are shown pixel by pixel, large ones smoothly.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    tile.paste(picture.resize(size, method), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    ImageDraw.Draw(tile).rectangle((0, 0, TILE - 1, TILE - 1), outline=EDGE)
    return np.asarray(tile), ""


def _known(group: PreferenceGroup, k: int) -> str:
    """What the record holds of candidate k."""
    wins = [c.p if c.i == k else 1 - c.p for c in group.comparisons if k in (c.i, c.j)]
    parts = [f"wins {sum(wins) / len(wins):.2f}"] if wins else ["not compared"]
    if group.quality is not None:
        parts.append(f"quality {group.quality[k]:.2f}")
    return "  ".join(parts)
