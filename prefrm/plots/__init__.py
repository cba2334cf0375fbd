"""Figures: the win matrix with its images, and the plots of evaluation and training reports.

Each function returns a matplotlib `Figure`; `figure.savefig(path)` writes it. Only matplotlib's object
interface is used, so there is no global state and no display.
"""

from prefrm.plots.charts import (
    bars,
    grouped_bars,
    interval_points,
    learning_curve,
    order_gap_figure,
    reliability_figure,
)
from prefrm.plots.explanation import explanation_figure
from prefrm.plots.matrix import win_matrix_figure

__all__ = [
    "bars",
    "explanation_figure",
    "grouped_bars",
    "interval_points",
    "learning_curve",
    "order_gap_figure",
    "reliability_figure",
    "win_matrix_figure",
]
