"""A picture of what the policy drew: one column for each prompt, before training above, after below."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefrm.plots.lettering import Lettering
from prefrm.plots.style import EDGE, HATCH, INK, MISSING, SOFT, new_figure
from prefrm.quickstart.policy import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["gallery"]

CELL_INCHES = 1.5
PROMPT = Lettering(points=8.5)


def gallery(before: Sequence[Sample], after: Sequence[Sample]) -> "Figure":
    """`before` and `after` hold samples for the same prompts, in the same order."""
    figure = new_figure(CELL_INCHES * len(before) + 0.7, CELL_INCHES * 2 + 1.3)
    grid = figure.subplots(2, len(before), squeeze=False)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.82, bottom=0.09, wspace=0.12, hspace=0.28)
    for row, (name, samples) in enumerate((("before", before), ("after", after))):
        for axes, sample in zip(grid[row], samples, strict=True):
            _draw(axes, sample)
        grid[row][0].set_ylabel(name, fontsize=11, weight="bold", color=INK)
    for axes, sample in zip(grid[0], before, strict=True):
        lines = PROMPT.wrap(sample.prompt.text, 0.92 * CELL_INCHES, 3)
        axes.set_title("\n".join(lines), fontsize=PROMPT.points, color=INK)
    return figure


def _draw(axes: "Axes", sample: Sample) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(EDGE)
    if sample.image is None:
        axes.set_facecolor(MISSING)
        axes.fill([0, 1, 1, 0], [0, 0, 1, 1], facecolor=MISSING, edgecolor=EDGE, hatch=HATCH)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    else:
        axes.imshow(sample.image, interpolation="nearest")
    axes.set_xlabel(
        "draws nothing" if sample.image is None else f"oracle {sample.oracle:.2f}", fontsize=8.5, color=SOFT
    )
