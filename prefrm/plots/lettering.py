"""Text that fits: measured with the fonts that draw it, shortened with "…" or wrapped."""

import logging
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prefrm.display import ELLIPSIS, one_line
from prefrm.errors import missing_extra

__all__ = ["Lettering", "expect_missing_glyphs"]

POINTS_PER_INCH = 72
ZERO_WIDTH_JOINER = "\u200d"
Kept = Literal["start", "end", "ends"]


@contextmanager
def expect_missing_glyphs() -> Iterator[None]:
    """No warning of matplotlib for each glyph or weight that no font has.

    `fonts.name_missing` names glyphs together; a text without its weight is still a text.
    """
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettering:
    """A size and a weight of the figures' font; widths and rooms are in inches."""

    points: float
    weight: str | int = "normal"

    def width(self, text: str) -> float:
        """The width of one line. Raises `MissingExtraError` without matplotlib."""
        try:
            from matplotlib.font_manager import FontProperties
            from matplotlib.textpath import text_to_path

            from prefrm.plots.fonts import families
        except ImportError as error:
            raise missing_extra("matplotlib", "data") from error
        properties = FontProperties(family=families(text), size=self.points, weight=self.weight)
        with expect_missing_glyphs():
            width, _, _ = text_to_path.get_text_width_height_descent(text, properties, ismath=False)
        return float(width) / POINTS_PER_INCH

    def fit(self, text: str, room: float, keep: Kept = "start") -> str:
        """`text` on one line; of one that is wider than `room`, its start, its end, or both, beside "…"."""
        line = one_line(text)
        if self.width(line) <= room:
            return line
        longest = bisect_right(
            range(len(line)), room, key=lambda kept: self.width(_shortened(line, kept, keep))
        )
        return _shortened(line, max(0, longest - 1), keep)

    def share(self, texts: Sequence[str], room: float) -> list[str]:
        """The texts, each on one line: whole if `room` is enough for all together, or of equal shares."""
        lines = [one_line(text) for text in texts]
        if sum(map(self.width, lines)) <= room:
            return lines
        return [self.fit(line, room / len(lines)) for line in lines]

    def wrap(self, text: str, room: float, lines: int) -> list[str]:
        """`text` in a bounded number of lines, broken at spaces, or anywhere if it has none.

        Of a text that needs more lines, the last one ends with "…".
        """
        rest = one_line(text)
        wrapped: list[str] = []
        while rest and len(wrapped) < lines - 1 and self.width(rest) > room:
            fits = bisect_right(range(1, len(rest)), room, key=lambda n: self.width(rest[:n]))
            cut = _whole(rest, max(1, fits))
            space = rest.rfind(" ", 0, cut + 1)
            cut = space if space > 0 else cut
            wrapped.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        return [*wrapped, self.fit(rest, room)] if rest else wrapped


def _shortened(line: str, kept: int, keep: Kept) -> str:
    """ "…" and `kept` characters of `line`, of those at each place that is to be kept."""
    at_start = {"start": kept, "end": 0, "ends": (kept + 1) // 2}[keep]
    head = line[: _whole(line, at_start)].rstrip()
    tail = line[len(line) - (kept - at_start) :] if kept > at_start else ""
    return f"{head}{ELLIPSIS}{tail.lstrip()}"


def _whole(line: str, cut: int) -> int:
    """`cut`, or the nearest place before it that parts no character from its marks and joiners."""
    while 0 < cut < len(line) and (
        unicodedata.category(line[cut]).startswith("M") or ZERO_WIDTH_JOINER in line[cut - 1 : cut + 1]
    ):
        cut -= 1
    return cut
