"""Comparisons a second in training: `prefrm.train` and the same loss in a plain `transformers.Trainer`.

Both in one process and in turn, because machines are noisy; a rate is the median of the rounds.
"""

import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prefrm.bench.cases import GROUPS, JUDGES, Kind
from prefrm.bench.plain import StepClock, plain_seconds, single_pairs
from prefrm.bench.training import ADAPTER, LR, device_name, one_thread_on_cpu, spec_of
from prefrm.files import write_json
from prefrm.judge import Judge
from prefrm.records import read_groups
from prefrm.train import DataConfig, OptimConfig
from prefrm.train.adapters import add_lora
from prefrm.train.datasets import open_mixture, survey_data
from prefrm.train.fit import fit

__all__ = ["Speed", "measure_speeds"]

ROUNDS = 3
# In a step of the plain loop.
PAIRS = 64
TIMED_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Comparisons a second of one kind of judge; each presentation order of a verdict counts as one.

    Attributes:
        steps: that are timed in each round.
        device: what they ran on; on a CPU, on one thread.
    """

    judge: str
    prefrm: float
    plain: float
    steps: int
    device: str

    @property
    def ratio(self) -> float:
        """How many times as fast."""
        return self.prefrm / self.plain


def measure_speeds(data: Path, target: Path, *, device: str = "auto") -> list[Speed]:
    """Of every kind of judge, in the order of `JUDGES`; kept in `target` for the next call on this device."""
    asked = [{"judge": kind.name, "steps": TIMED_STEPS, "device": device_name(device)} for kind in JUDGES]
    kept: list[dict[str, Any]] = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else []
    if len(kept) == len(asked) and all(
        one.items() <= entry.items() for one, entry in zip(asked, kept, strict=True)
    ):
        return [Speed(**entry) for entry in kept]
    with one_thread_on_cpu(device):
        speeds = [_speed(kind, data, device) for kind in JUDGES]
    write_json(target, [asdict(speed) for speed in speeds])
    return speeds


def _speed(kind: Kind, data: Path, device: str) -> Speed:
    ours, plain = [], []
    for _ in range(ROUNDS):
        ours.append(_prefrm_rate(_adapted(kind, device), data))
        judge = _adapted(kind.plain, device)
        with tempfile.TemporaryDirectory() as output:
            steps = TIMED_STEPS + 1
            pairs = single_pairs(read_groups(data, "train"), PAIRS * steps)
            seconds = plain_seconds(judge, pairs, batch_size=PAIRS, steps=steps, output=Path(output))
        plain.append(PAIRS / seconds)
    return Speed(
        judge=kind.name,
        prefrm=statistics.median(ours),
        plain=statistics.median(plain),
        steps=TIMED_STEPS,
        device=device_name(device),
    )


def _adapted(kind: Kind, device: str) -> Judge:
    torch.manual_seed(0)
    judge = Judge.from_base(spec_of(kind), device=device)
    add_lora(judge, **asdict(ADAPTER))
    return judge


def _prefrm_rate(judge: Judge, data: Path) -> float:
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        learned = DataConfig(path=data, validation=None, test=None)
        cache = output / "cache"
        fit(
            judge,
            open_mixture(learned, survey_data(learned, cache), seed=0, cache=cache),
            OptimConfig(steps=TIMED_STEPS + 1, batch_size=GROUPS, lr=LR),
            output=output,
            seed=0,
            callbacks=[clock],
        )
    orders = 2 if judge.spec.is_pairwise else 1
    return orders * GROUPS * _comparisons_a_group(data) / clock.median


def _comparisons_a_group(data: Path) -> float:
    return statistics.fmean(len(group.comparisons) for group in read_groups(data, "train"))
