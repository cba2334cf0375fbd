"""The curves of the study of reward hacking: a column for each method, a color for each reward."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefrm.bench.hacking_rows import Row, mean_curve
from prefrm.plots.style import DASHES, INK, SERIES, SOFT, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["hacking_figure"]

# Rows of the figure: what each shows, and by which line.
PANELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reward, dashed: second judge", {"judge": "-", "second": DASHES}),
    ("oracle", {"oracle": "-"}),
    ("diversity", {"diversity": "-"}),
)
# In inches: a panel, and what the figure needs below it for the legend.
WIDTH, HEIGHT, LEGEND = 3.4, 2.3, 0.6
FAINT = 0.25  # opacity of a single training


def hacking_figure(rows: Sequence[Row], rewards: Sequence[str]) -> "Figure":
    """Means over seeds, with the oracle of each training as a faint line; `rewards` fix the colors."""
    methods = list(dict.fromkeys(row.method for row in rows))
    height = HEIGHT * len(PANELS) + LEGEND
    figure = new_figure(max(WIDTH * len(methods), 2 * WIDTH), height)
    grid = figure.subplots(len(PANELS), len(methods), sharex=True, sharey="row", squeeze=False)
    figure.subplots_adjust(
        left=0.09, right=0.98, top=0.95, bottom=LEGEND * 1.7 / height, hspace=0.12, wspace=0.08
    )
    for (label, lines), axes_row in zip(PANELS, grid, strict=True):
        axes_row[0].set_ylabel(label, fontsize=9, color=INK)
        for method, axes in zip(methods, axes_row, strict=True):
            for n, reward in enumerate(rewards):
                some = [row for row in rows if (row.method, row.reward) == (method, reward)]
                if some:
                    _draw(axes, some, lines, SERIES[n % len(SERIES)], reward)
            style(axes, method if axes in grid[0] else "")
    for axes in grid[-1]:
        axes.set_xlabel("iteration", fontsize=9, color=INK)
    for axes in grid[0]:
        axes.axhline(0.5, color=SOFT, linewidth=0.8)
    handles = {line.get_label(): line for axes in grid[1] for line in axes.lines}
    shown = {name: handles[name] for name in rewards if name in handles}
    figure.legend(
        shown.values(), shown.keys(), loc="lower center", ncols=len(shown), frameon=False, fontsize=9
    )
    return figure


def _draw(axes: Any, rows: Sequence[Row], lines: dict[str, Any], color: str, label: str) -> None:
    for measure, look in lines.items():
        if measure == "oracle" and len(rows) > 1:
            for row in rows:
                axes.plot(
                    *zip(*mean_curve([row], measure), strict=True), color=color, linewidth=0.8, alpha=FAINT
                )
        axes.plot(
            *zip(*mean_curve(rows, measure), strict=True),
            color=color,
            linestyle=look,
            linewidth=1.8,
            label=label,
        )
