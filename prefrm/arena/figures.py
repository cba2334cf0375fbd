"""The plots of an arena: ratings, win matrices, win rates by part, and images on which models differ most."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefrm import plots
from prefrm.arena.images import Answers
from prefrm.arena.rating import Estimate, Standings
from prefrm.arena.results import JudgeResults
from prefrm.errors import MediaError
from prefrm.plots.candidates import picture
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import EDGE, HATCH, INK, MISSING, SOFT, new_figure
from prefrm.winmatrix import WinMatrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["as_win_matrix", "draw", "slug"]

MOST_BARS = 40  # of a figure of parts, over all models
ROWS = 3  # of places where the better model wins most clearly, and as many where it loses
CELL, TEXT_WIDTH, HEAD, MARGIN = 1.5, 2.3, 0.75, 0.15  # in inches
PROMPT, CAPTION, NAME = Lettering(points=9), Lettering(points=8.5), Lettering(points=10, weight="bold")
FILES = ("ratings.png", "win_matrix*.png", "by_*.png", "differences*.png")


def draw(results: Mapping[str, JudgeResults], answers: Answers, folder: Path) -> dict[str, str]:
    """Draw what there is data for; returns file name -> caption. Plots of an earlier run are removed."""
    for pattern in FILES:
        for stale in folder.glob(pattern):
            stale.unlink()
    shown = _ratings(results, answers.models, folder)
    for name, one in results.items():
        if not one.verdicts.judged:
            continue
        file = f"win_matrix_{slug(name)}.png"
        plots.win_matrix_figure(
            as_win_matrix(one.overall), prompt=f"Mean probability of a win, by {name}", labels=answers.models
        ).savefig(folder / file)
        shown[file] = f"Win matrix by `{name}`: row beats column."
        shown |= _by_part(name, one, answers.models, folder)
        shown |= _differences(name, one, answers, folder)
    return shown


def slug(name: str) -> str:
    """A name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name).strip("._") or "_"


def _ratings(results: Mapping[str, JudgeResults], models: Sequence[str], folder: Path) -> dict[str, str]:
    known = {
        name: {m: _ends(rating) for m, rating in zip(models, one.overall.rating, strict=True)}
        for name, one in results.items()
        if any(math.isfinite(rating.value) for rating in one.overall.rating)
    }
    if not known:
        return {}
    plots.interval_points(known, title="Ratings", xlabel="Bradley-Terry rating, Elo points").savefig(
        folder / "ratings.png"
    )
    return {"ratings.png": "Ratings by every judge, with 95% intervals that are clustered by prompt."}


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def as_win_matrix(one: Standings) -> WinMatrix:
    """The mean win matrix as that of a group, for its figure."""
    mean = one.win_matrix.astype(np.float32)
    # The complement of the larger side is exact.
    p = np.where(mean >= mean.T, mean, np.float32(1) - mean.T)
    nothing = np.full(p.shape, np.nan, np.float32)
    return WinMatrix(
        p=p.astype(np.float32),
        valid=~np.isnan(p),
        tie=nothing,
        order_gap=nothing,
        errors=("",) * len(p),
        pair_errors={
            (int(i), int(j)): "the two were not compared" for i, j in np.argwhere(np.triu(np.isnan(p)))
        },
    )


def _by_part(name: str, one: JudgeResults, models: Sequence[str], folder: Path) -> dict[str, str]:
    shown: dict[str, str] = {}
    for tag, values in one.by.items():
        known = {f"{value} ({part.prompts})": part for value, part in values.items() if part.comparisons}
        if not known or len(known) * len(models) > MOST_BARS:
            continue
        file = f"by_{slug(tag)}_{slug(name)}.png"
        plots.interval_points(
            {
                model: {value: _ends(part.win_rate[m]) for value, part in known.items()}
                for m, model in enumerate(models)
            },
            title=f"Win rate by {tag}, {name}",
            xlabel="mean probability of a win over another model",
            digits=2,
        ).savefig(folder / file)
        shown[file] = f"Win rates by {tag} by `{name}`, with 95% intervals; in brackets, prompts."
    return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A place as it is drawn: its prompt, and of each model the image and its win rate there."""

    prompt: str
    images: Sequence[bytes | None]
    rates: Sequence[float]


def _differences(name: str, one: JudgeResults, answers: Answers, folder: Path) -> dict[str, str]:
    """The places at which the best and the last model differ most, either way."""
    rates = np.array([estimate.value for estimate in one.overall.win_rate])
    if not np.isfinite(rates).sum() >= 2:
        return {}
    best, last = int(np.nanargmax(rates)), int(np.nanargmin(rates))
    p = one.verdicts.p_GMM[:, best, last]
    order = [int(g) for g in np.argsort(-p, kind="stable") if math.isfinite(p[g])]
    wins = _of_different_prompts([g for g in order if p[g] > 0.5], answers)
    losses = _of_different_prompts([g for g in reversed(order) if p[g] < 0.5], answers)
    if best == last or not wins + losses:
        return {}
    rows = [_row(one, answers, g) for g in (*wins, *losses)]
    file = f"differences_{slug(name)}.png"
    _sheet(rows, answers.models, title=f"Largest differences, by {name}").savefig(folder / file)
    return {
        file: f"Where `{answers.models[best]}` and `{answers.models[last]}` differ most by `{name}`: first "
        "the places at which the first one wins, then those at which it loses. Below an image, its win rate "
        "over the others of its row."
    }


def _of_different_prompts(places: Sequence[int], answers: Answers) -> list[int]:
    first: dict[int, int] = {}
    for g in places:
        first.setdefault(answers.places[g].prompt, g)
    return list(first.values())[:ROWS]


def _row(one: JudgeResults, answers: Answers, g: int) -> _Row:
    p = one.verdicts.p_GMM[g].copy()
    np.fill_diagonal(p, np.nan)
    known = np.isfinite(p)
    rates = np.where(known, p, 0).sum(1) / np.where(known.any(1), known.sum(1), 1)
    place = answers.places[g]
    return _Row(
        prompt=answers.prompts[place.prompt].text,
        images=answers.candidates(place),
        rates=np.where(known.any(1), rates, np.nan).tolist(),
    )


def _sheet(rows: Sequence[_Row], models: Sequence[str], *, title: str) -> "Figure":
    """A row for each place: its prompt, and the image of each model with its win rate."""
    width = 2 * MARGIN + TEXT_WIDTH + len(models) * CELL
    height = HEAD + len(rows) * (CELL + 0.12) + MARGIN
    figure = new_figure(width, height)
    figure.text(MARGIN / width, 1 - 0.22 / height, title, fontsize=12, weight="bold", color=INK, va="center")
    for m, model in enumerate(models):
        x = MARGIN + TEXT_WIDTH + (m + 0.5) * CELL
        label = NAME.fit(model, CELL - 0.15, keep="ends")
        style: dict[str, Any] = {
            "fontsize": NAME.points,
            "weight": NAME.weight,
            "color": INK,
            "ha": "center",
            "va": "center",
        }
        figure.text(x / width, 1 - 0.55 / height, label, **style)
    for n, row in enumerate(rows):
        top = height - HEAD - n * (CELL + 0.12)
        lines = PROMPT.wrap(row.prompt, TEXT_WIDTH - 0.2, 6)
        figure.text(
            MARGIN / width,
            (top - 0.1) / height,
            "\n".join(lines),
            fontsize=PROMPT.points,
            color=INK,
            va="top",
        )
        for m, (image, rate) in enumerate(zip(row.images, row.rates, strict=True)):
            x, side = MARGIN + TEXT_WIDTH + m * CELL + 0.07, CELL - 0.25
            axes = figure.add_axes((x / width, (top - side) / height, side / width, side / height))
            _draw_image(axes, image, "not judged" if math.isnan(rate) else f"{rate:.2f}")
    return figure


def _draw_image(axes: "Axes", image: bytes | None, caption: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(EDGE)
    try:
        axes.imshow(np.asarray(picture(image or b"")), interpolation="antialiased")
    except MediaError:
        axes.fill([0, 1, 1, 0], [0, 0, 1, 1], facecolor=MISSING, edgecolor=EDGE, hatch=HATCH)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel(caption, fontsize=CAPTION.points, color=SOFT, labelpad=2)
