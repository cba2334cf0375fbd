"""The figure class of every plot. Needs matplotlib; `prefrm.plots.style.new_figure` imports it lazily."""

import warnings

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["PlainFigure"]


class PlainFigure(Figure):
    """A figure that shows text as it is written: prompts and file names are no formulas.

    A `$` starts no mathematics, and a character that the font lacks is a box without a warning for each.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; every way to save it comes here, and layouts are computed here."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            super().draw(renderer)
