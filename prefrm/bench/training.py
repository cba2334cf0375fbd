"""One case of the benchmark: train it with `prefrm.train`, as a user would, and keep a row of numbers."""

import argparse
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from data_recipes.shapes.captioner import CHECKPOINT
from prefrm.bench.cases import CASES, GROUPS, PAIRS, STEPS, Case, Kind
from prefrm.files import write_whole
from prefrm.judge import JudgeSpec
from prefrm.resources import MEBIBYTE, Resources
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, run

__all__ = ["ADAPTER", "LR", "Row", "main", "read_row", "spec_of", "train_case"]

LR = 2e-3
ADAPTER = AdapterConfig(rank=16, alpha=32)
ROW = "row.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a case gave, on held-out prompts with clean labels, after calibration on the validation split.

    Attributes:
        part: "shapes", "cyclic" or "noise".
        judge: the head.
        attention: of a verdict.
        quantised: "nf4", or None.
        flip: the share of flipped training labels.
        seed: of the training.
        pair_accuracy: over strict pairs; `low` and `high` are its 95% interval.
        ece: expected calibration error.
        order_gap: mean; None without presentation order.
        seconds: of the training alone.
        peak_mb: of the whole case: resident memory on a CPU, allocated memory on a GPU; in MiB.
        device: what it ran on.
    """

    part: str
    judge: str
    attention: str | None
    quantised: str | None
    flip: float
    seed: int
    pair_accuracy: float
    low: float
    high: float
    ece: float
    order_gap: float | None
    seconds: float
    peak_mb: float
    device: str


def spec_of(kind: Kind) -> JudgeSpec:
    """The judge of a case, on the shapes world's captioner."""
    return JudgeSpec(
        base_model=str(CHECKPOINT),
        head=kind.head,
        attention=kind.attention,
        quantize=kind.quantize,
        template=kind.template,
    )


def train_case(case: Case, runs: Path, *, steps: int = STEPS, device: str = "auto") -> Row:
    """Train, measure, write `row.json`; an interrupted case goes on from its newest checkpoint."""
    folder = runs / case.name
    if (folder / "bundle").exists():
        # Killed between its bundle and its row: what the training took is lost.
        shutil.rmtree(folder)
    config = TrainConfig(
        output=folder,
        judge=spec_of(case.kind),
        data=DataConfig(path=runs / "data" / case.data),
        adapter=ADAPTER,
        optim=OptimConfig(steps=steps, batch_size=GROUPS if case.kind.reads_groups else PAIRS, lr=LR),
        device=device,
        seed=case.seed,
    )
    with Resources() as resources:
        result = run(config, resume=True)
    evaluation = result.held_out
    accuracy, gap = evaluation.metrics.accuracy, evaluation.metrics.mean_order_gap
    row = Row(
        part=case.part,
        judge=case.kind.head,
        attention=case.kind.attention if case.kind.head == "verdict" else None,
        quantised=case.kind.quantize,
        flip=case.flip,
        seed=case.seed,
        pair_accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        ece=evaluation.calibration.ece,
        order_gap=None if math.isnan(gap) else gap,
        seconds=result.seconds,
        peak_mb=_peak_mb(resources),
        device=_device_name(device),
    )
    write_whole(folder / ROW, json.dumps(asdict(row), indent=2) + "\n")
    return row


def read_row(folder: Path) -> Row | None:
    """The row of a finished case, or None."""
    path = folder / ROW
    return Row(**_numbers(path)) if path.is_file() else None


def _numbers(path: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return numbers


def _peak_mb(resources: Resources) -> float:
    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak / MEBIBYTE
    return resources.peak_rss_mb


def _device_name(device: str) -> str:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "CPU"


def main() -> None:
    """Train the case of a name, in this process: so each has its own memory and its own peak."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=[case.name for case in CASES])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    case = next(case for case in CASES if case.name == arguments.name)
    if not torch.cuda.is_available():
        # As many cases run side by side as there are cores.
        torch.set_num_threads(1)
    train_case(case, arguments.runs, steps=arguments.steps, device=arguments.device)


if __name__ == "__main__":
    main()
