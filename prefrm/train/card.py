"""The model card that a bundle carries as its README.md."""

import math
from collections.abc import Sequence

from prefrm.bundle import Calibration
from prefrm.eval import Accuracy, Evaluation
from prefrm.train.config import TrainConfig

__all__ = ["model_card"]


def model_card(
    config: TrainConfig,
    calibration: Calibration | None,
    evaluation: Evaluation | None,
    *,
    plots: Sequence[str] = (),
) -> str:
    """Markdown: what the judge is, what it learned from, and how well it agrees with held-out labels.

    `plots` are the files in `plots/` that it shows.
    """
    adapter = "every weight" if config.adapter is None else f"LoRA, rank {config.adapter.rank}"
    if config.judge.quantize is not None:
        adapter += f", on a base in {config.judge.quantize}"
    temperature = (
        "not calibrated: its probabilities order pairs, and mean no more than that"
        if calibration is None
        else f"temperature {calibration.temperature:.3f}, from {calibration.n} pairs of `{calibration.split}`"
    )
    lines = [
        "# A preference judge",
        "",
        "Says which of two images answers a prompt better. Made with prefrm.",
        "",
        f"- base model: `{config.judge.base_model}`",
        f"- head {config.judge.head}, attention {config.judge.attention}, template {config.judge.template}",
        f"- trained: {adapter}, {config.optim.steps} steps of "
        f"{config.optim.batch_size * config.optim.accumulation} comparisons, seed {config.seed}",
        f"- calibration: {temperature}",
        "",
        *_results(config.data.test, evaluation),
        *(line for name in plots for line in (f"![{_caption(name)}](plots/{name})", "")),
        "```python",
        "from prefrm.engine import Engine",
        "",
        'judge = Engine.from_bundle("path/to/this/folder")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _results(split: str | None, evaluation: Evaluation | None) -> list[str]:
    if evaluation is None:
        return ["It was not evaluated on held-out data.", ""]
    metrics = evaluation.metrics
    rows = [
        ("pair accuracy", _accuracy(metrics.accuracy)),
        ("strict pairs", str(metrics.accuracy.pairs)),
        ("expected calibration error", _number(evaluation.calibration.ece)),
        ("mean order gap", _number(metrics.mean_order_gap)),
    ]
    rows += [
        (f"pair accuracy, {tag} {value}", _accuracy(entry))
        for tag, values in metrics.by_tag.items()
        for value, entry in values.items()
    ]
    table = [f"| {name} | {value} |" for name, value in rows]
    return [f"On the split `{split}`:", "", "| | |", "|---|---:|", *table, ""]


def _accuracy(entry: Accuracy) -> str:
    return f"{_number(entry.value)} ({_number(entry.low)} to {_number(entry.high)})" if entry.pairs else "-"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _caption(name: str) -> str:
    return name.removesuffix(".png").replace("_", " ")
