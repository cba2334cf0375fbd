"""Write an evaluation as Markdown, JSON and plots.

Decides nothing about a judge and computes nothing; it shows what `prefrm.eval.evaluation` measured.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from prefrm import plots
from prefrm.eval.calibration import Calibration
from prefrm.eval.evaluation import Evaluation
from prefrm.eval.metrics import Accuracy
from prefrm.eval.pairs import pairs_of

__all__ = ["write_report"]

UNREADABLE_SHOWN = 20
MOST_BARS = 40
PLOTS = ("reliability.png", "accuracy_by_*.png", "order_gap.png")
DEFINITIONS = """\
Pair accuracy is micro over the pairs of which the dataset prefers one image; a judge that answers
exactly 0.5 is wrong, and a pair that was not judged counts neither way. Its interval is a 95%
bootstrap over prompts. The expected calibration error has ten bins of equal width over the
confidence max(p, 1 - p). The order gap is the change of P(i beats j) when the two are presented the
other way round. The regret of best-of-K is in the dataset's unit of quality."""


def write_report(evaluation: Evaluation, folder: Path | str, *, before: Evaluation | None = None) -> None:
    """Write report.md, report.json and the plots that report.md shows into `folder`, which is made.

    The plots of an earlier report there are removed, so that none outlives its numbers.
    `before` is an evaluation of the same groups to stand beside it, such as the uncalibrated one.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    numbers = evaluation.to_dict() | ({} if before is None else {"before": before.to_dict()})
    (target / "report.json").write_text(
        json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    for pattern in PLOTS:
        for stale in target.glob(pattern):
            stale.unlink()
    pictures = _write_plots(evaluation, target, before)
    (target / "report.md").write_text(_markdown(evaluation, before, pictures), encoding="utf-8")


def _write_plots(evaluation: Evaluation, folder: Path, before: Evaluation | None) -> dict[str, str]:
    """Draw what there is data for; returns file name -> what it shows."""
    metrics, shown = evaluation.metrics, {}
    curves = {_name(e): e.calibration.table for e in (before, evaluation) if e is not None}
    if metrics.comparisons > metrics.unjudged:
        plots.reliability_figure(curves).savefig(folder / "reliability.png")
        shown["reliability.png"] = "Reliability: how often the judge is right at each confidence."
    for name, values in metrics.by_tag.items():
        scored = {value: entry for value, entry in values.items() if entry.pairs}
        if not 1 <= len(scored) <= MOST_BARS:
            continue
        file = f"accuracy_by_{_file_part(name)}.png"
        plots.bars(
            {value: entry.value for value, entry in scored.items()},
            intervals={value: (entry.low, entry.high) for value, entry in scored.items()},
            title=f"Pair accuracy by {name}",
            reference=0.5,
        ).savefig(folder / file)
        shown[file] = f"Pair accuracy by {name}, with 95% intervals."
    gaps = pairs_of(evaluation.judged).judged.order_gap
    if len(gaps := gaps[np.isfinite(gaps)]):
        plots.order_gap_figure(gaps).savefig(folder / "order_gap.png")
        shown["order_gap.png"] = "Order gap: how far a verdict moves when the two images change places."
    return shown


def _markdown(evaluation: Evaluation, before: Evaluation | None, pictures: Mapping[str, str]) -> str:
    columns = [evaluation] if before is None else [before, evaluation]
    rows = [_headline(column) for column in columns]
    lines = ["# Evaluation", "", _table(["", *map(_name, columns)], _turned(rows))]
    for name, values in evaluation.metrics.by_tag.items():
        body = [[value, *_accuracy_cells(entry)] for value, entry in values.items()]
        lines += [
            "",
            f"## By {name}",
            "",
            _table([name, "accuracy", "95% interval", "pairs", "unjudged"], body),
        ]
    lines += ["", "## Reliability", "", _reliability_table(evaluation.calibration)]
    for file, caption in pictures.items():
        lines += ["", f"![{caption}]({file})", "", caption]
    if evaluation.unreadable:
        lines += ["", "## Left out", "", *_left_out(evaluation)]
    lines += ["", "## What the words mean", "", DEFINITIONS]
    return "\n".join(lines) + "\n"


def _name(evaluation: Evaluation) -> str:
    """What heads a column: the scorer as it is, or at a further temperature."""
    return "as scored" if evaluation.temperature == 1 else f"at temperature {evaluation.temperature:.3g}"


def _headline(evaluation: Evaluation) -> dict[str, str]:
    m, c = evaluation.metrics, evaluation.calibration
    value, interval, pairs, _ = _accuracy_cells(m.accuracy)
    return {
        "pair accuracy": f"{value} ({interval})",
        "strict pairs": pairs,
        "groups": str(m.groups),
        "comparisons (ties)": f"{m.comparisons} ({m.ties})",
        "not judged": str(m.unjudged),
        "accuracy of always the lower index": _number(m.lower_index_accuracy),
        "log loss (nats)": _number(m.log_loss),
        "expected calibration error": _number(c.ece),
        "Brier score": _number(c.brier),
        "order gap, mean": _number(m.mean_order_gap),
        "order gap, largest": _number(m.max_order_gap),
        "same verdict in both orders": _number(m.swap_consistency),
        "Kendall's tau with quality": _number(m.kendall_tau),
        "regret of best-of-K": _number(m.best_of_k_regret),
        "regret of a random pick": _number(m.random_regret),
        "win-rate spread": _number(m.win_rate_spread),
    }


def _turned(rows: list[dict[str, str]]) -> list[list[str]]:
    return [[name, *(row[name] for row in rows)] for name in rows[0]]


def _accuracy_cells(entry: Accuracy) -> list[str]:
    interval = f"{_number(entry.low)} to {_number(entry.high)}" if entry.pairs else "-"
    return [_number(entry.value), interval, str(entry.pairs), str(entry.unjudged)]


def _reliability_table(calibration: Calibration) -> str:
    body = [
        [
            f"{row.low:.2f} to {row.high:.2f}",
            str(row.pairs),
            _number(row.share),
            _number(row.confidence),
            _number(row.agreement),
        ]
        for row in calibration.table
    ]
    return _table(["confidence", "pairs", "share", "mean confidence", "agreement"], body)


def _left_out(evaluation: Evaluation) -> Iterator[str]:
    count = len(evaluation.unreadable)
    yield f"{count} candidate{'s' if count > 1 else ''} could not be judged; the rest of each group was."
    yield ""
    for entry in evaluation.unreadable[:UNREADABLE_SHOWN]:
        yield f"- record `{entry.id}`, candidate {entry.candidate}: {' '.join(entry.reason.split())}"
    if count > UNREADABLE_SHOWN:
        yield f"- and {count - UNREADABLE_SHOWN} more in report.json"


def _table(header: list[str], body: list[list[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _file_part(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
