"""The plots of an evaluation, each drawn where there is data for it."""

from collections.abc import Mapping
from pathlib import Path

from prefrm import plots
from prefrm.eval.accuracies import Accuracy
from prefrm.eval.evaluation import Evaluation
from prefrm.eval.metrics import Metrics
from prefrm.eval.pairs import pairs_of
from prefrm.eval.tables import words

__all__ = ["AGAINST", "draw", "remove_stale"]

MOST_BARS = 40
AGAINST = "against.png"
FILES = (
    "accuracy.png",
    "accuracy_by_*.png",
    AGAINST,
    "illusory_advantage.png",
    "order_gap.png",
    "reliability.png",
)


def remove_stale(folder: Path) -> None:
    """Remove the plots of an earlier report, so that none outlives its numbers."""
    for pattern in FILES:
        for stale in folder.glob(pattern):
            stale.unlink()


def draw(
    evaluation: Evaluation, folder: Path, *, other: Evaluation | None, opponent: Evaluation | None
) -> dict[str, str]:
    """Draw what there is data for; returns file name -> what it shows.

    `other` is the same judge with or without a calibration; `opponent` is another judge.
    """
    metrics = evaluation.metrics
    shown: dict[str, str] = {}
    if metrics.comparisons > metrics.unjudged:
        shown |= _accuracy(metrics, folder)
        curves = [entry for entry in (evaluation, other) if entry is not None]
        # The scorer as it is comes first, whichever of the two the report is about.
        curves.sort(key=lambda entry: entry.applied is not None)
        # The parameters of a calibration would not fit into the legend.
        names = ["as scored" if entry.applied is None else "calibrated" for entry in curves]
        tables = [entry.calibration.table for entry in curves]
        figure = plots.reliability_figure(dict(zip(names, tables, strict=True)))
        figure.savefig(folder / "reliability.png")
        shown["reliability.png"] = (
            "Reliability: how often the judge is right at each confidence; on a tie it is half right."
        )
    for tag, values in metrics.by_tag.items():
        shown |= _by_tag(tag, values, folder)
    shown |= _illusory(metrics, folder)
    if len(ordered := pairs_of(evaluation.judged).ordered):
        plots.order_gap_figure(ordered.order_gap, ordered.weight).savefig(folder / "order_gap.png")
        shown["order_gap.png"] = "Order gap: how far a verdict moves when the two images change places."
    if opponent is not None:
        shown |= _against(metrics, opponent.metrics, folder)
    return shown


def _accuracy(metrics: Metrics, folder: Path) -> dict[str, str]:
    overall = {words(key): entry.overall for key, entry in metrics.accuracies.items() if entry.overall.pairs}
    if not overall:
        return {}
    figure = plots.bars(
        {key: entry.value for key, entry in overall.items()},
        intervals={key: (entry.low, entry.high) for key, entry in overall.items()},
        title="Accuracy, by each definition",
        marks={
            "always first": {key: entry.always_first for key, entry in overall.items()},
            "chance": {key: entry.chance for key, entry in overall.items()},
            "always tie": {key: entry.always_tie for key, entry in overall.items()},
        },
    )
    figure.savefig(folder / "accuracy.png")
    return {"accuracy.png": "Accuracy by each definition, beside judges that look at nothing."}


def _by_tag(tag: str, values: Mapping[str, Accuracy], folder: Path) -> dict[str, str]:
    scored = {f"{value} ({entry.pairs})": entry for value, entry in values.items() if entry.pairs}
    if not 1 <= len(scored) <= MOST_BARS:
        return {}
    file = f"accuracy_by_{_file_part(tag)}.png"
    plots.bars(
        {value: entry.value for value, entry in scored.items()},
        intervals={value: (entry.low, entry.high) for value, entry in scored.items()},
        title=f"Pair accuracy by {tag}",
        reference=0.5,
    ).savefig(folder / file)
    return {file: f"Pair accuracy by {tag}, with 95% intervals; in brackets, pairs."}


def _illusory(metrics: Metrics, folder: Path) -> dict[str, str]:
    views = {words(key): entry for key, entry in metrics.illusory_advantage.items() if entry.sets}
    if not views:
        return {}
    figure = plots.grouped_bars(
        {
            "divided by the set's own std": {key: entry.group_advantage for key, entry in views.items()},
            "divided by the std of all groups": {key: entry.batch_advantage for key, entry in views.items()},
        },
        title="Illusory advantage",
        xlabel="mean |advantage| of equally good candidates; 0 is right",
    )
    figure.savefig(folder / "illusory_advantage.png")
    return {"illusory_advantage.png": "Illusory advantage: what equally good candidates are given."}


def _against(first: Metrics, second: Metrics, folder: Path) -> dict[str, str]:
    columns = {
        title: {
            words(key): breakdown.overall
            for key, breakdown in metrics.accuracies.items()
            if key in first.accuracies and key in second.accuracies and breakdown.overall.pairs
        }
        for title, metrics in (("this judge", first), ("the other", second))
    }
    if not all(columns.values()):
        return {}
    figure = plots.grouped_bars(
        {title: {key: entry.value for key, entry in column.items()} for title, column in columns.items()},
        intervals={
            title: {key: (entry.low, entry.high) for key, entry in column.items()}
            for title, column in columns.items()
        },
        title="Two judges, the same groups",
        xlabel="accuracy",
    )
    figure.savefig(folder / AGAINST)
    return {AGAINST: "Both judges by each definition, with 95% intervals of each by itself."}


def _file_part(tag: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in tag)
