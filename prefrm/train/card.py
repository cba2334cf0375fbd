"""The model card that a bundle carries as its README.md."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from prefrm.bundle import CalibrationRecord
from prefrm.eval import Evaluation, calibration_line, results_section
from prefrm.records import DatasetInfo
from prefrm.train.config import TrainConfig
from prefrm.winmatrix import TrainingInputs

__all__ = ["model_card"]

HUB_DATASET = re.compile(r"(?:https://huggingface\.co/datasets/|hf://)([\w.-]+/[\w.-]+)(?:[@/].*)?")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(
    config: TrainConfig,
    calibration: CalibrationRecord | None,
    evaluation: Evaluation | None,
    *,
    steps: int,
    processes: int = 1,
    sources: Sequence[DatasetInfo] = (),
    plots: Sequence[str] = (),
    inputs: TrainingInputs | None = None,
) -> str:
    """The Hub's metadata, then the judge, its training data, and its agreement with held-out labels.

    Names no folder of this machine: a base model in one is called by the folder's name alone.

    Args:
        config: the settings of the run.
        calibration: of the bundle.
        evaluation: on the test split.
        steps: that were done, which with early stopping may be fewer than the settings say.
        processes: that shared each step.
        sources: the datasets that the judge learned from, with their licences.
        plots: the files in `plots/` that it shows.
        inputs: of the training data; None leaves them out.
    """
    adapter = "every weight" if config.adapter is None else f"LoRA, rank {config.adapter.rank}"
    if config.judge.quantize is not None:
        adapter += f", on a base in {config.judge.quantize}"
    attention = f"attention {config.judge.attention}, " if config.judge.is_pairwise else ""
    lines = [
        "---",
        yaml.safe_dump(_metadata(config, sources), sort_keys=False).strip(),
        "---",
        "",
        "# A preference judge",
        "",
        f"Says which of two {config.judge.kind}s answers a prompt better. Made with prefrm.",
        "",
        f"- base model: {_base_model(config.judge.base_model)}",
        f"- head {config.judge.head}, {attention}template {config.judge.template}",
        f"- trained: {adapter}, {_steps(config, steps, processes)}, seed {config.seed}",
        *map(_source_line, sources),
        *([] if inputs is None else [f"- each training group had {inputs.describe()}"]),
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


def _source_line(info: DatasetInfo) -> str:
    if not (address := _address(info)):
        # A person's own data, whose folder is nobody else's business, or data that the recipe draws.
        return f"- learned from: data of the recipe `{info.recipe}`"
    licence = f"licence: {info.licence}" if info.licence else "licence unknown"
    return f"- learned from: {address} (recipe `{info.recipe}`); {licence}"


def _address(info: DatasetInfo) -> str:
    given = str(info.options.get("source", ""))
    return info.source or (given if given.startswith("hf://") else "")


def _metadata(config: TrainConfig, sources: Sequence[DatasetInfo]) -> dict[str, Any]:
    """The fields by which the Hub lists a model, without those that are unknown."""
    base = config.judge.base_model
    hub = dict.fromkeys(found[1] for info in sources if (found := HUB_DATASET.fullmatch(_address(info))))
    known = {
        "license": config.license,
        "base_model": base if HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        "datasets": list(hub) or None,
    }
    return {
        **{key: value for key, value in known.items() if value is not None},
        "library_name": "prefrm",
        "pipeline_tag": "video-text-to-text" if config.judge.kind == "video" else "image-text-to-text",
        "tags": ["prefrm", "preference-judge", "reward-model", config.judge.head],
    }


def _base_model(name: str) -> str:
    folder = Path(name)
    return f"a local folder, `{folder.name}`" if folder.is_absolute() or folder.is_dir() else f"`{name}`"


def _steps(config: TrainConfig, done: int, processes: int) -> str:
    size = config.optim.batch_size * config.optim.accumulation * processes
    pairs = config.optim.pairs_per_group
    read = "with all their comparisons" if pairs is None else f"with at most {pairs} comparisons of each"
    early = f" (stopped early, of {config.optim.steps})" if done < config.optim.steps else ""
    return f"{done} steps{early} of {size} groups {read}"
