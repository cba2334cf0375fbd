"""One case of the benchmark: train it with `prefrm.train`, as a user would, and keep a row of numbers.

The files that say so are those of `prefrm.bench.kept`.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prefrm.bench.cases import CASES, GROUPS, STEPS, Case, Kind
from prefrm.bench.disputed import disputed_accuracy
from prefrm.bench.kept import keep, kept, make_room
from prefrm.bench.provenance import prefrm_version
from prefrm.judge import JudgeSpec
from prefrm.judge.model import resolve_device
from prefrm.records import PreferenceGroup, read_groups
from prefrm.resources import MEBIBYTE, Resources
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, run

__all__ = [
    "ADAPTER",
    "CPU",
    "LR",
    "Row",
    "device_name",
    "main",
    "one_thread_on_cpu",
    "read_row",
    "spec_of",
    "train_case",
    "training_asked",
]

LR = 2e-3
ADAPTER = AdapterConfig(rank=16, alpha=32)
CPU = "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a case gave, on held-out prompts with clean labels, after calibration on the validation split.

    Attributes:
        part: one of `PARTS`.
        judge: the head.
        attention: of a verdict.
        quantised: "nf4", or None.
        flip: the share of flipped training labels.
        seed: of the training.
        steps: of the optimizer.
        compared: of part "kinds", what is compared; otherwise images.
        pair_accuracy: over strict pairs; `low` and `high` are its 95% interval.
        disputed: by criterion, the accuracy over the pairs of which another criterion prefers the other
            candidate; empty where there is one criterion.
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
    steps: int
    compared: str
    pair_accuracy: float
    low: float
    high: float
    disputed: Mapping[str, float]
    ece: float
    order_gap: float | None
    seconds: float
    peak_mb: float
    device: str


def spec_of(kind: Kind) -> JudgeSpec:
    """The judge of a case."""
    return JudgeSpec(
        base_model=f"shipped:{kind.base}",
        kind=kind.candidates,
        head=kind.head,
        attention=kind.attention,
        quantize=kind.quantize,
        template=kind.template,
    )


def train_case(case: Case, runs: Path, *, steps: int = STEPS, device: str = "auto") -> Row:
    """Train, measure, write `row.json`; an interrupted case goes on from its newest checkpoint."""
    folder, config = runs / case.name, _config(case, runs, steps, device)
    make_room(folder, training_asked(config), spent="bundle")
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
        steps=steps,
        compared=case.compared,
        pair_accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        disputed=disputed_accuracy(evaluation.judged, _told(case, runs)),
        ece=evaluation.calibration.ece,
        order_gap=None if math.isnan(gap) else gap,
        seconds=result.seconds,
        peak_mb=_peak_mb(resources),
        device=device_name(device),
    )
    keep(folder, asdict(row))
    return row


def read_row(case: Case, runs: Path, *, steps: int, device: str) -> Row | None:
    """The row of a case that was trained by this version as it would be now, on this device, or None."""
    numbers = kept(runs / case.name, training_asked(_config(case, runs, steps, device)))
    return None if numbers is None else Row(**numbers)


def _told(case: Case, runs: Path) -> Iterable[PreferenceGroup]:
    """The test split of a case, with the criterion of each group."""
    return read_groups(runs / "data" / case.told.data, "test")


def _config(case: Case, runs: Path, steps: int, device: str) -> TrainConfig:
    return TrainConfig(
        output=runs / case.name,
        judge=spec_of(case.kind),
        data=DataConfig(path=runs / "data" / case.data),
        adapter=ADAPTER,
        optim=OptimConfig(steps=steps, batch_size=GROUPS, lr=LR),
        device=device,
        seed=case.seed,
    )


def training_asked(config: TrainConfig) -> dict[str, Any]:
    """What two trainings have in common if their rows may stand for each other, as JSON."""
    settings = asdict(config)
    for place in ("output", "data"):
        del settings[place]
    asked = settings | {"device": device_name(config.device), "version": prefrm_version()}
    same: dict[str, Any] = json.loads(json.dumps(asked))
    return same


def device_name(device: str) -> str:
    """What "auto", "cpu" or "cuda:0" is on this machine, for people to read."""
    found = resolve_device(device)
    if found.type == "cuda":
        return torch.cuda.get_device_name(found)
    return found.type.upper()


@contextmanager
def one_thread_on_cpu(device: str) -> Iterator[None]:
    """As many cases run side by side as there are cores; on an accelerator nothing changes."""
    threads = torch.get_num_threads()
    if device_name(device) == CPU:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _peak_mb(resources: Resources) -> float:
    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak / MEBIBYTE
    return resources.peak_rss_mb


def main() -> None:
    """Train the case of a name, in this process: so each has its own memory and its own peak."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=[case.name for case in CASES])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    case = next(case for case in CASES if case.name == arguments.name)
    with one_thread_on_cpu(arguments.device):
        train_case(case, arguments.runs, steps=arguments.steps, device=arguments.device)


if __name__ == "__main__":
    main()
