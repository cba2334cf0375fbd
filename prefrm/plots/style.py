"""Colours and the look that all figures share.

Colours are told apart by people with any of the common colour blindnesses, and every number that a
colour stands for is also written.
"""

from typing import TYPE_CHECKING, Literal

from prefrm.errors import missing_extra
from prefrm.plots.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "DASHES",
    "DPI",
    "EDGE",
    "GRID",
    "HATCH",
    "INK",
    "LOSS_TO_WIN",
    "MISSING",
    "SERIES",
    "SOFT",
    "TITLE",
    "loss_to_win",
    "new_figure",
    "style",
]

DPI = 150
TITLE = Lettering(points=12, weight="bold")
# Blue against orange is the pair that every common colour blindness keeps apart; both ends are
# equally dark, and the middle is nearly white.
LOSS_TO_WIN = ("#8c3b0a", "#d97b2b", "#f6c79b", "#f7f6f3", "#a9cbe4", "#3f83bd", "#123f73")
# Okabe and Ito's palette, in the order in which neighbours differ most.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
INK, SOFT, GRID = "#22262b", "#6b7280", "#e5e7eb"
MISSING, EDGE, HATCH = "#e4e4e7", "#b6b8be", "/////"
DASHES = (0, (4, 3))


def new_figure(width: float, height: float, layout: Literal["tight"] | None = None) -> "Figure":
    """An empty figure of that size in inches; a tight layout fits its axes to their labels.

    Raises `MissingExtraError` without matplotlib.
    """
    try:
        from prefrm.plots.figure import PlainFigure
    except ImportError as error:
        raise missing_extra("matplotlib", "data") from error
    return PlainFigure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)


def loss_to_win() -> "Colormap":
    """A new color map of numbers in [0, 1]: orange, nearly white at 0.5, blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("loss_to_win", LOSS_TO_WIN)


def style(axes: "Axes", title: str = "", *, grid: Literal["both", "x", "y"] = "both", pad: float = 6) -> None:
    """Give axes the shared look: no box, a faint grid behind the data, the title at the left.

    `pad` is what is left between the axes and the title, in points.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.set_axisbelow(True)
    axes.grid(True, axis=grid, color=GRID, linewidth=0.8)
    if title:
        figure = axes.get_figure(root=True)
        assert figure is not None
        short = TITLE.fit(title, float(figure.get_figwidth()) - 0.4)
        axes.set_title(short, loc="left", fontsize=TITLE.points, weight=TITLE.weight, color=INK, pad=pad)
