"""An evaluation's numbers as Markdown tables. Computes nothing; what has no data is "-"."""

import math
from collections.abc import Iterator, Mapping, Sequence

from prefrm.display import markdown_table
from prefrm.eval.accuracies import Accuracy
from prefrm.eval.calibration import CalibrationMetrics
from prefrm.eval.evaluation import Evaluation
from prefrm.eval.lengths import LengthBias
from prefrm.eval.metrics import Metrics
from prefrm.eval.paired import Difference, SideBySide
from prefrm.eval.published import PUBLISHED
from prefrm.rewards import criterion_name

__all__ = [
    "accuracy_text",
    "against_tables",
    "column_table",
    "criterion_table",
    "definition_table",
    "difference_text",
    "headline",
    "illusory_table",
    "left_out",
    "length_tables",
    "name",
    "number",
    "published_tables",
    "reliability_table",
    "tag_table",
    "turned",
    "words",
]

UNREADABLE_SHOWN = 20


def headline(evaluation: Evaluation) -> dict[str, str]:
    """What stands first: one cell for each row of the table."""
    m, c = evaluation.metrics, evaluation.calibration
    return {
        "pair accuracy": accuracy_text(m.accuracy),
        "always the lower index": number(m.lower_index_accuracy),
        "chance": number(m.accuracy.chance),
        "groups": str(m.groups),
        "comparisons (ties)": f"{m.comparisons} ({m.ties})",
        "not judged": str(m.unjudged),
        "log loss (nats)": number(m.log_loss),
        "expected calibration error": number(c.ece),
        "expected calibration error, strict pairs alone": number(c.ece_strict),
        "Brier score": number(c.brier),
        "order gap, mean": number(m.mean_order_gap),
        "order gap, largest": number(m.max_order_gap),
        "label mass, mean": number(m.mean_label_mass),
        "same verdict in both orders": number(m.swap_consistency),
        "intransitive triples": f"{number(m.intransitive_share)} of {m.triples}",
        "Kendall's tau with quality": number(m.kendall_tau),
        "Spearman's rho with quality": number(m.spearman_rho),
        "regret of best-of-K": number(m.best_of_k_regret),
        "regret of a random pick": number(m.random_regret),
        "win-rate spread": number(m.win_rate_spread),
    }


def definition_table(evaluation: Evaluation) -> str:
    """Every definition of accuracy, beside what a judge that looks at nothing gets."""
    thresholds = evaluation.thresholds
    fitted = (
        {}
        if thresholds is None
        else {
            "half_tie_accuracy": number(thresholds.half_tie),
            "tie_calibrated_accuracy": number(thresholds.tie_calibrated),
        }
    )
    body = [
        [
            words(entry),
            *_accuracy_cells(breakdown.overall),
            *map(number, _baselines(breakdown.overall)),
            fitted.get(entry, "-"),
        ]
        for entry, breakdown in evaluation.metrics.accuracies.items()
    ]
    columns = ["value", "95% interval", "pairs", "prompts", "unjudged"]
    baselines = ["always first", "chance", "always tie"]
    return markdown_table(["definition", *columns, *baselines, "tie threshold"], body)


def published_tables(metrics: Metrics) -> list[str]:
    """Every published definition, and a list of what each is."""
    body = [
        [f"`{entry}`", *_accuracy_cells(accuracy), number(accuracy.chance)]
        for entry, accuracy in metrics.published.items()
    ]
    columns = ["value", "95% interval", "pairs", "prompts", "unjudged", "chance"]
    meaning = [
        f"- `{entry}`: {PUBLISHED[entry].summary}. Published on {PUBLISHED[entry].split}."
        for entry in metrics.published
    ]
    return [markdown_table(["definition", *columns], body), "\n".join(meaning)]


def column_table(metrics: Metrics, definition: str) -> str:
    """A published column with this judge in it, the best first."""
    own = metrics.published[definition]
    cells = {judge: number(value) for judge, value in PUBLISHED[definition].judges.items()}
    cells["**this judge**"] = f"**{number(own.value)}** ({number(own.low)} to {number(own.high)})"
    values = {**PUBLISHED[definition].judges, "**this judge**": own.value if own.pairs else -1.0}
    ranking = sorted(cells, key=lambda judge: -values[judge])
    return markdown_table(["judge", "accuracy"], [[judge, cells[judge]] for judge in ranking])


def tag_table(metrics: Metrics, tag: str) -> str:
    """One tag: pair accuracy in full, and the value of every other definition."""
    others = {
        words(entry): breakdown.by_tag[tag]
        for entry, breakdown in metrics.accuracies.items()
        if entry != "pair_accuracy"
    }
    body = [
        [
            value,
            *_accuracy_cells(entry),
            number(entry.always_first),
            *(number(by[value].value) for by in others.values()),
        ]
        for value, entry in metrics.by_tag[tag].items()
    ]
    columns = ["pair accuracy", "95% interval", "pairs", "prompts", "unjudged", "always first"]
    return markdown_table([tag, *columns, *others], body)


def criterion_table(evaluation: Evaluation) -> str:
    """The pair accuracy by each criterion that the judge was asked by, and of the combined matrix."""
    named = {criterion_name(name): entry for name, entry in evaluation.by_criterion.items()}
    body = [
        [entry, *_accuracy_cells(accuracy)]
        for entry, accuracy in {**named, "**combined**": evaluation.metrics.accuracy}.items()
    ]
    columns = ["pair accuracy", "95% interval", "pairs", "prompts", "unjudged"]
    return markdown_table(["criterion", *columns], body)


def length_tables(bias: LengthBias) -> list[str]:
    """Accuracy by which text is longer, and how often the longer one is preferred."""
    body = [[f"preferred text {which}", *_accuracy_cells(entry)] for which, entry in bias.accuracy.items()]
    columns = ["pair accuracy", "95% interval", "pairs", "prompts", "unjudged"]
    shares = (
        f"Of two texts of different lengths, the judge prefers the longer one with {number(bias.judge)} in "
        f"the mean, and the labels with {number(bias.labels)}. Always preferring the longer one is right on "
        f"{number(bias.always_longer)} of the strict pairs."
    )
    return [markdown_table(["", *columns], body), shares]


def illusory_table(metrics: Metrics) -> str:
    """What equally good candidates are given, or the reason why nobody knows."""
    views = metrics.illusory_advantage
    if not views:
        return "- (the dataset does not say how good its candidates are)"
    if not (sets := next(iter(views.values())).sets):
        return "- (no group has two judged candidates of equal quality)"
    candidates = next(iter(views.values())).candidates
    body = [
        [
            words(view),
            number(entry.group_advantage),
            number(entry.batch_advantage),
            number(entry.amplification),
            number(entry.spread),
            number(entry.usual_spread),
            number(entry.noise_to_signal),
        ]
        for view, entry in views.items()
    ]
    columns = [
        "by the set's own std",
        "by the std of all groups",
        "amplification",
        "spread in a set",
        "usual spread",
    ]
    rows = markdown_table(["reward", *columns, "noise to signal"], body)
    return f"Mean |advantage| of {candidates} candidates in {sets} sets of equal quality:\n\n{rows}"


def reliability_table(calibration: CalibrationMetrics) -> str:
    """The bins of the reliability plot."""
    body = [
        [
            f"{row.low:.2f} to {row.high:.2f}",
            str(row.pairs),
            number(row.share),
            number(row.confidence),
            number(row.agreement),
        ]
        for row in calibration.table
    ]
    return markdown_table(["confidence", "pairs", "share", "mean confidence", "agreement"], body)


def against_tables(first: Evaluation, second: Evaluation, both: SideBySide) -> list[str]:
    """Two judges beside each other: the paired differences, a sentence on verdicts, then every number."""
    body = [
        [what, *_difference_cells(entry), str(entry.pairs), str(entry.prompts)]
        for what, entry in (("pair accuracy", both.pair_accuracy), ("log loss (nats)", both.log_loss))
    ]
    verdicts = (
        f"Their verdicts differ on {both.differ} of {both.pairs} pairs. Of the strict ones, this judge alone "
        f"is right on {both.first_alone} and the other alone on {both.second_alone}. "
        f"{both.left_out} pairs that not both of them judged are left out."
    )
    rows = [_all_numbers(entry) for entry in (first, second)]
    columns = ("difference", "95% interval", "pairs", "prompts")
    return [
        markdown_table(["this judge minus the other", *columns], body),
        verdicts,
        markdown_table(["", "this judge", "the other"], turned(rows)),
    ]


def left_out(evaluation: Evaluation) -> Iterator[str]:
    """A line for each candidate and each pair that could not be judged, up to a limit."""
    count = len(evaluation.unreadable)
    pairs = sum(len(entry.candidates) == 2 for entry in evaluation.unreadable)
    yield f"Not judged: {count - pairs} candidates and, of others, {pairs} pairs. The rest of each group was."
    yield ""
    for entry in evaluation.unreadable[:UNREADABLE_SHOWN]:
        who = " and ".join(map(str, entry.candidates))
        yield f"- record `{entry.id}`, candidate {who}: {' '.join(entry.reason.split())}"
    if count > UNREADABLE_SHOWN:
        yield f"- and {count - UNREADABLE_SHOWN} more in report.json"


def name(evaluation: Evaluation) -> str:
    """The heading of a column: the scorer as it is, or under a calibration."""
    return "as scored" if evaluation.applied is None else f"at {evaluation.applied.describe()}"


def turned(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Columns of named cells as the rows of a table; a cell that a column lacks is "-"."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [[key, *(row.get(key, "-") for row in rows)] for key in names]


def accuracy_text(entry: Accuracy) -> str:
    """The value, its interval and what it is of; "-" where nothing counts."""
    value, between, *_ = _accuracy_cells(entry)
    return f"{value} ({between}; {_size(entry)})" if entry.pairs else "-"


def difference_text(entry: Difference) -> str:
    """As `accuracy_text`, with signs."""
    value, between = _difference_cells(entry)
    return f"{value} ({between}; {_size(entry)})" if entry.pairs else "-"


def words(identifier: str) -> str:
    """A name of the code as people write it."""
    return identifier.replace("_", " ")


def number(value: float) -> str:
    """Three places, "-" where there is none."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _all_numbers(evaluation: Evaluation) -> dict[str, str]:
    named = {
        words(entry): accuracy_text(breakdown.overall)
        for entry, breakdown in evaluation.metrics.accuracies.items()
    }
    return named | headline(evaluation)


def _accuracy_cells(entry: Accuracy) -> list[str]:
    between = f"{number(entry.low)} to {number(entry.high)}" if entry.pairs else "-"
    return [number(entry.value), between, str(entry.pairs), str(entry.prompts), str(entry.unjudged)]


def _difference_cells(entry: Difference) -> tuple[str, str]:
    if not entry.pairs:
        return "-", "-"
    return f"{entry.value:+.3f}", f"{entry.low:+.3f} to {entry.high:+.3f}"


def _size(entry: Accuracy | Difference) -> str:
    pairs = "1 pair" if entry.pairs == 1 else f"{entry.pairs} pairs"
    return f"{pairs} of {entry.prompts} prompt{'' if entry.prompts == 1 else 's'}"


def _baselines(entry: Accuracy) -> tuple[float, float, float]:
    return entry.always_first, entry.chance, entry.always_tie
