"""The figure class of every plot. Needs matplotlib; `prefrm.plots.style.new_figure` imports it lazily."""

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from prefrm.plots.fonts import families, name_missing
from prefrm.plots.lettering import Lettering, expect_missing_glyphs

__all__ = ["PlainFigure"]

EDGE_INCHES = 0.05


class PlainFigure(Figure):
    """A figure that shows text as it is written: prompts and file names are no formulas.

    A `$` starts no mathematics, a font of the system draws what the default font lacks, and a line that
    would leave the figure ends with "…". Characters that no font has are named in one warning.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; every way to save it comes here, and layouts are computed here."""
        texts = self.findobj(Text)
        name_missing(text.get_text() for text in texts)
        for text in texts:
            text.set_parse_math(False)
            text.set_fontfamily(families(text.get_text()))
        # A legend knows where its texts are only when it is drawn.
        legends = {text for legend in self.findobj(Legend) for text in legend.findobj(Text)}
        with expect_missing_glyphs():
            if (engine := self.get_layout_engine()) is not None:
                engine.execute(self)
            bounds = self.bbox.padded(-EDGE_INCHES * self.dpi)
            for text in (text for text in texts if text not in legends):
                _keep_inside(text, renderer, bounds, self.dpi)
            super().draw(renderer)


def _keep_inside(text: Text, renderer: RendererBase, bounds: Bbox, dpi: float) -> None:
    """Shorten the lines of a horizontal text that would leave `bounds`, in pixels."""
    if not text.get_text() or not text.get_visible() or text.get_rotation():
        return
    box = text.get_window_extent(renderer)
    outside = max(box.x1 - bounds.x1, bounds.x0 - box.x0)
    if outside <= 0:
        return
    # What a centred text loses, it loses at both ends.
    room = box.width - outside * (2 if text.get_horizontalalignment() == "center" else 1)
    lettering = Lettering(points=float(text.get_fontsize()), weight=text.get_fontweight())
    text.set_text("\n".join(lettering.fit(line, room / dpi) for line in text.get_text().split("\n")))
