"""Plots of reports: reliability, accuracy bars, order gaps, learning curves."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from prefrm.errors import DataError
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import DASHES, INK, SERIES, SOFT, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Bin",
    "bars",
    "grouped_bars",
    "interval_points",
    "learning_curve",
    "order_gap_figure",
    "reliability_figure",
]

MANY_POINTS = 60
# Of a figure of bars, in inches.
WIDTH = 6.4
# Of ticks and legends, and of the axes' labels.
NAME, LABEL = Lettering(points=9), Lettering(points=10)
# In inches: how wide a tick's name may be, what a figure needs beside ticks and axes, and a legend's key.
TICK_ROOM, MARGINS, KEY = 2.1, 0.35, 0.6
# A legend under the axes; how far, in letters, is `borderaxespad`.
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}
# A number to the right of a bar; how far, in points, is `xytext`.
BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": INK}


class Bin(Protocol):
    """A row of a reliability table; `prefrm.eval.Reliability` is one and says what the numbers are."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def pairs(self) -> int: ...
    @property
    def share(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def agreement(self) -> float: ...


def reliability_figure(curves: Mapping[str, Sequence["Bin"]]) -> "Figure":
    """Agreement against confidence for each named table, over the share of pairs in each bin.

    The diagonal is perfect calibration; below it a judge is more confident than right.
    """
    figure = new_figure(5.2, 5.9)
    upper, lower = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.92, bottom=0.155, hspace=0.08)
    upper.plot([0.5, 1], [0.5, 1], color=SOFT, linewidth=1, linestyle=DASHES, label="perfect")
    bottom = 0.5
    names = NAME.share(list(curves), 4.1 - KEY * (len(curves) + 1))
    for n, (name, table) in enumerate(zip(names, curves.values(), strict=True)):
        rows = [row for row in table if row.pairs]
        color = SERIES[n % len(SERIES)]
        upper.plot(
            [row.confidence for row in rows],
            [row.agreement for row in rows],
            color=color,
            marker="os^D"[n % 4],
            markersize=6,
            markeredgecolor="white",
            linewidth=1.8,
            label=name,
        )
        bottom = min([bottom, *(row.agreement for row in rows)])
        span = (table[0].high - table[0].low) / len(curves)
        lower.bar(
            [row.low + span * (n + 0.5) for row in table],
            [row.share for row in table],
            width=span * 0.86,
            color=color,
        )
    upper.set(xlim=(0.495, 1.005), ylim=(max(0.0, bottom - 0.05), 1.02), ylabel="agreement with the data")
    lower.set(xlabel="confidence, max(p, 1 - p)", ylabel="share")
    # A curve may be anywhere in the upper axes, so nothing else is written there.
    lower.legend(
        *upper.get_legend_handles_labels(),
        **BELOW,
        borderaxespad=4.0,
        ncols=len(curves) + 1,
        columnspacing=1.4,
        frameon=False,
        fontsize=9,
    )
    style(upper, "Reliability")
    style(lower)
    return figure


def bars(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    reference: float | None = None,
    marks: Mapping[str, Mapping[str, float]] | None = None,
) -> "Figure":
    """Horizontal bars on [0, 1], one for each name, with the number beside it.

    `intervals` are (low, high) error bars; `reference` is a dashed line, which the legend calls chance;
    `marks` are points on each bar, by what the legend calls them, such as baselines. With marks, the numbers
    stand in a column at the right, so that none looks like the number of a mark.
    """
    names = list(values)
    explained = len(marks or ()) + (reference is not None)
    figure = new_figure(WIDTH, 0.95 + 0.42 * len(names) + (0.4 if explained else 0), layout="tight")
    axes = figure.subplots()
    ticks = [NAME.fit(name, TICK_ROOM, keep="ends") for name in names]
    labels = NAME.share(list(marks or ()), _axes_width(ticks) - KEY * (explained + 1))
    place = np.arange(len(names))
    numbers = np.array([values[name] for name in names], dtype=np.float64)
    axes.barh(place, numbers, height=0.62, color=SERIES[0], zorder=2)
    if reference is not None:
        axes.axvline(reference, color=INK, linewidth=1, linestyle=DASHES, zorder=3, label="chance")
    ends = np.ones_like(numbers) if marks else numbers
    if intervals is not None:
        low, high = (np.array([intervals[name][side] for name in names]) for side in (0, 1))
        reach = np.abs([numbers - low, high - numbers])
        axes.errorbar(numbers, place, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3, zorder=4)
        ends = np.fmax(ends, high)
    for n, (label, points) in enumerate(zip(labels, (marks or {}).values(), strict=True)):
        x = [points[name] for name in names]
        # Ever smaller, so that marks at one place are all seen.
        look: dict[str, Any] = {
            "marker": "o^D"[n % 3],
            "s": 72 - 18 * (n % 3),
            "color": SERIES[(n + 1) % len(SERIES)],
        }
        axes.scatter(x, place, **look, edgecolors="white", zorder=5, clip_on=False, label=label)
    if explained:
        axes.legend(**BELOW, borderaxespad=2.2, ncols=explained, frameon=False, fontsize=9)
    for y, (end, number) in enumerate(zip(ends, numbers, strict=True)):
        axes.annotate(f"{number:.3f}", (end, y), (10 if marks else 6, 0), **BESIDE)
    axes.set_yticks(place, ticks)
    axes.set(xlim=(0, 1.14), ylim=(len(names) - 0.45, -0.55), xticks=np.linspace(0, 1, 6))
    style(axes, title, grid="x")
    return figure


def grouped_bars(
    series: Mapping[str, Mapping[str, float]],
    *,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    title: str = "",
    xlabel: str = "",
) -> "Figure":
    """Horizontal bars from 0, one for each series under each name, with the number beside it.

    `series` maps what the legend says to the value of each name; `intervals` are (low, high) error bars.
    """
    names = list(next(iter(series.values())))
    ticks = [NAME.fit(name, TICK_ROOM, keep="ends") for name in names]
    labels = NAME.share(list(series), _axes_width(ticks) - KEY * len(series))
    figure = new_figure(WIDTH, 1.5 + 0.28 * len(series) * len(names) + 0.14 * len(names), layout="tight")
    axes = figure.subplots()
    height, top = 0.8 / len(series), 0.0
    for n, (label, (key, values)) in enumerate(zip(labels, series.items(), strict=True)):
        place = np.arange(len(names)) + height * (n - (len(series) - 1) / 2)
        numbers = np.array([values[name] for name in names], dtype=np.float64)
        look: dict[str, Any] = {"color": SERIES[n % len(SERIES)], "label": label}
        axes.barh(place, numbers, height=height * 0.86, zorder=2, **look)
        ends = numbers
        if intervals is not None:
            low, high = (np.array([intervals[key][name][side] for name in names]) for side in (0, 1))
            reach = np.abs([numbers - low, high - numbers])
            axes.errorbar(
                numbers, place, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3, zorder=4
            )
            ends = np.fmax(numbers, high)
        top = max(top, float(np.nanmax(ends, initial=0.0)))
        for y, end, number in zip(place, ends, numbers, strict=True):
            axes.annotate(f"{number:.3f}", (end, y), (6, 0), **BESIDE)
    axes.set_yticks(np.arange(len(names)), ticks)
    axes.set(
        xlim=(0, top * 1.16 or 1),
        ylim=(len(names) - 0.45, -0.55),
        xlabel=LABEL.fit(xlabel, _axes_width(ticks)),
    )
    axes.legend(**BELOW, borderaxespad=4.0, ncols=len(series), frameon=False, fontsize=9)
    style(axes, title, grid="x")
    return figure


def interval_points(
    series: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    title: str = "",
    xlabel: str = "",
    digits: int = 0,
) -> "Figure":
    """A point with its interval for each series under each name, with the number at the right.

    `series` maps what the legend says to (value, low, high) of each name; what is NaN is not drawn.
    """
    names = list(next(iter(series.values())))
    ticks = [NAME.fit(name, TICK_ROOM, keep="ends") for name in names]
    labels = NAME.share(list(series), _axes_width(ticks) - KEY * len(series))
    figure = new_figure(WIDTH, 1.5 + 0.24 * len(series) * len(names) + 0.14 * len(names), layout="tight")
    axes = figure.subplots()
    height = 0.8 / len(series)
    for n, (label, values) in enumerate(zip(labels, series.values(), strict=True)):
        place = np.arange(len(names)) + height * (n - (len(series) - 1) / 2)
        point, low, high = np.array([values[name] for name in names], dtype=np.float64).T
        look: dict[str, Any] = {"color": SERIES[n % len(SERIES)], "zorder": 3}
        axes.errorbar(
            point,
            place,
            xerr=np.abs([point - low, high - point]),
            fmt="none",
            elinewidth=2,
            capsize=3,
            **look,
        )
        axes.scatter(point, place, marker="os^D"[n % 4], s=42, edgecolors="white", label=label, **look)
        for y, number in zip(place, point, strict=True):
            # Beyond the right edge of the axes, where no interval ends.
            where = axes.get_yaxis_transform()
            text = f"{number:.{digits}f}" if np.isfinite(number) else "-"
            axes.annotate(text, (1.0, y), (4, 0), xycoords=where, annotation_clip=False, **BESIDE)
    axes.set_yticks(np.arange(len(names)), ticks)
    axes.set(ylim=(len(names) - 0.45, -0.55), xlabel=LABEL.fit(xlabel, _axes_width(ticks)))
    axes.legend(**BELOW, borderaxespad=4.0, ncols=len(series), frameon=False, fontsize=9)
    style(axes, title, grid="x")
    return figure


def order_gap_figure(
    gaps: npt.NDArray[np.floating], weight: npt.NDArray[np.floating] | None = None
) -> "Figure":
    """Histogram of order gaps, [N] in [0, 1], with their mean; `weight`, [N], is 1 for each if None.

    Raises `DataError` if there is none.
    """
    if not len(gaps):
        raise DataError("there is no order gap to draw: no pair was judged in both orders")
    figure = new_figure(WIDTH, 3.2, layout="tight")
    axes = figure.subplots()
    top = max(0.1, float(np.ceil(gaps.max() * 10) / 10))
    edges = np.linspace(0, top, 21).tolist()
    share = np.full(len(gaps), 1 / len(gaps)) if weight is None else weight / weight.sum()
    axes.hist(gaps, bins=edges, weights=share, color=SERIES[0], rwidth=0.92, zorder=2)
    mean = float(share @ gaps)
    axes.axvline(mean, color=SERIES[1], linewidth=1.8, zorder=3)
    axes.text(
        mean,
        1.02,
        f"mean {mean:.3f}",
        transform=axes.get_xaxis_transform(),
        color=SERIES[1],
        fontsize=9,
        ha="left" if mean < top * 0.8 else "right",
        va="bottom",
    )
    axes.set(
        xlim=(0, top),
        xlabel="|P(i beats j), i shown first - P(i beats j), j shown first|",
        ylabel="share of pairs",
    )
    style(axes, "Order gap", grid="y", pad=20)
    return figure


def learning_curve(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "",
) -> "Figure":
    """A line of (x, y) points for each name, with its last value; a long one with its running mean."""
    figure = new_figure(6.8, 3.8, layout="tight")
    axes = figure.subplots()
    for color, (name, points) in zip(cycle(SERIES), curves.items(), strict=False):
        x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
        few = len(x) <= MANY_POINTS
        if not few:
            axes.plot(x, y, color=color, linewidth=0.8, alpha=0.3)
            y = _running_mean(y, len(y) // 30)
        short = NAME.fit(name, 2.6, keep="ends")
        label = f"{short}: {y[-1]:.3g}" if len(y) else short
        marker: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white"} if few else {}
        axes.plot(x, y, color=color, linewidth=2, label=label, **marker)
    if curves:
        # Under the axes, where no line is.
        axes.legend(**BELOW, borderaxespad=4.0, ncols=2, frameon=False, fontsize=9)
    axes.set(xlabel=LABEL.fit(xlabel, 5.5), ylabel=LABEL.fit(ylabel, 2.8))
    style(axes, title, grid="y")
    return figure


def _axes_width(ticks: Sequence[str]) -> float:
    """The width in inches that a figure of bars leaves to its axes, beside the names of its ticks."""
    return WIDTH - MARGINS - max(map(NAME.width, ticks))


def _running_mean(y: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """The mean of the last `window` values up to each point (of fewer at the start)."""
    total = np.cumsum(np.concatenate([[0.0], y]))
    end = np.arange(1, len(y) + 1)
    start = np.maximum(end - window, 0)
    return np.asarray((total[end] - total[start]) / (end - start))
