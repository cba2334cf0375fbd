"""The parts of a bundle's card about its judge's calibration and its agreement with held-out labels."""

import re
from collections.abc import Sequence

from prefrm.display import markdown_table
from prefrm.eval.evaluation import Evaluation
from prefrm.eval.tables import accuracy_text, headline, illusory_table, number, words

__all__ = ["RESULTS", "calibration_line", "results_section", "with_calibration", "with_results"]

RESULTS = "## Results"
SHOWN = (
    "expected calibration error",
    "expected calibration error, strict pairs alone",
    "Brier score",
    "log loss (nats)",
    "order gap, mean",
    "same verdict in both orders",
    "intransitive triples",
    "Kendall's tau with quality",
    "regret of best-of-K",
    "regret of a random pick",
)


def calibration_line(described: str | None) -> str:
    """The list item about the calibration; None is a judge without one."""
    uncalibrated = "not calibrated: its probabilities order pairs, and mean no more than that"
    return f"- calibration: {described or uncalibrated}"


def with_calibration(card: str, described: str) -> str:
    """`card` with its list item about the calibration replaced; a card without one stays as it is."""
    return re.sub(r"^- calibration: .*$", lambda _: calibration_line(described), card, flags=re.MULTILINE)


def results_section(split: str | None, evaluation: Evaluation | None, plots: Sequence[str] = ()) -> str:
    """Markdown under the heading "Results"; `plots` are the files in `plots/` that it shows."""
    told = ["It was not evaluated on held-out data."] if evaluation is None else _results(split, evaluation)
    pictures = (f"![{name.removesuffix('.png').replace('_', ' ')}](plots/{name})" for name in plots)
    return "\n\n".join([RESULTS, *told, *pictures]) + "\n"


def with_results(card: str, results: str) -> str:
    """`card` with its section "Results" replaced by `results`, at the end if it has none."""
    section = re.compile(rf"^{re.escape(RESULTS)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if section.search(card):
        return section.sub(lambda _: f"{results}\n", card, count=1).rstrip("\n") + "\n"
    return f"{card.rstrip()}\n\n{results}"


def _results(split: str | None, evaluation: Evaluation) -> list[str]:
    metrics, first = evaluation.metrics, headline(evaluation)
    rows = [
        [words(key), accuracy_text(entry.overall), number(entry.overall.chance)]
        for key, entry in metrics.accuracies.items()
    ]
    rows += [
        [f"pair accuracy, {tag} {value}", accuracy_text(entry), number(entry.chance)]
        for tag, values in metrics.by_tag.items()
        for value, entry in values.items()
    ]
    rows += [[name, first[name], ""] for name in SHOWN]
    return [
        f"On the split `{split}`:",
        markdown_table(["", "", "chance"], rows),
        f"Illusory advantage. {illusory_table(metrics)}",
    ]
