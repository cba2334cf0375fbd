"""The model card that a bundle carries as its README.md."""

from collections.abc import Sequence

from prefrm.bundle import CalibrationRecord
from prefrm.eval import Evaluation, calibration_line, results_section
from prefrm.train.config import TrainConfig

__all__ = ["model_card"]


def model_card(
    config: TrainConfig,
    calibration: CalibrationRecord | None,
    evaluation: Evaluation | None,
    *,
    steps: int,
    processes: int = 1,
    plots: Sequence[str] = (),
) -> str:
    """Markdown: what the judge is, what it learned from, and how well it agrees with held-out labels.

    Args:
        config: the settings of the run.
        calibration: what the bundle has.
        evaluation: on the test split.
        steps: that were done, which with early stopping may be fewer than the settings say.
        processes: that shared each step.
        plots: the files in `plots/` that it shows.
    """
    adapter = "every weight" if config.adapter is None else f"LoRA, rank {config.adapter.rank}"
    if config.judge.quantize is not None:
        adapter += f", on a base in {config.judge.quantize}"
    attention = f"attention {config.judge.attention}, " if config.judge.is_pairwise else ""
    lines = [
        "# A preference judge",
        "",
        "Says which of two images answers a prompt better. Made with prefrm.",
        "",
        f"- base model: `{config.judge.base_model}`",
        f"- head {config.judge.head}, {attention}template {config.judge.template}",
        f"- trained: {adapter}, {_steps(config, steps, processes)}, seed {config.seed}",
        calibration_line(None if calibration is None else calibration.describe()),
        "",
        results_section(config.data.test, evaluation, plots),
        "## Use",
        "",
        "```python",
        "from prefrm.engine import Engine",
        "",
        'judge = Engine.from_bundle("path/to/this/folder")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _steps(config: TrainConfig, done: int, processes: int) -> str:
    size = config.optim.batch_size * config.optim.accumulation * processes
    unit = "groups with all their comparisons" if config.judge.reads_groups else "comparisons"
    early = f" (stopped early, of {config.optim.steps})" if done < config.optim.steps else ""
    return f"{done} steps{early} of {size} {unit}"
