"""Workers that read and collate ahead of the step: the same run to the last bit."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefrm.judge import JudgeSpec
from prefrm.records import PreferenceGroup, comparisons_from_ranking, read_groups, write_groups
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    OptimConfig,
    TrainConfig,
    TrainResult,
    run,
)
from prefrm.train.trainer import JudgeTrainer

# On a machine with fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    """One record cannot be read; every step draws comparisons, and random numbers for dropout."""
    folder = brightness(train=8)
    broken = PreferenceGroup(
        id="broken",
        prompt="p",
        candidates=(b"no image", b"none"),
        comparisons=comparisons_from_ranking([1, 2]),
    )
    write_groups([*read_groups(folder, "train"), broken], folder, "train")
    return TrainConfig(
        output=tmp_path / "alone",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=folder, validation=None, test=None),
        adapter=AdapterConfig(rank=2, alpha=4, dropout=0.2),
        optim=OptimConfig(steps=8, batch_size=2, accumulation=2, pairs_per_group=2, lr=1e-2),
        checkpoint=CheckpointConfig(save_every=3),
        device="cpu",
    )


def with_workers(config: TrainConfig, number: int, *, stream: bool = False) -> TrainConfig:
    data = replace(config.data, num_workers=number, stream=stream, shuffle_buffer=5)
    return replace(config, output=config.output.with_name(f"{number}-{stream}"), data=data)


def outcome(config: TrainConfig, result: TrainResult) -> tuple[Any, ...]:
    weights = (result.bundle / "model" / "model.safetensors").read_bytes()
    lines = [json.loads(line)["loss"] for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    return hashlib.sha256(weights).hexdigest(), lines, result.left_out


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["stored", "streamed"])
def test_workers_change_nothing_but_the_time(config: TrainConfig, stream: bool, caplog: Any) -> None:
    alone, many = (with_workers(config, number, stream=stream) for number in (0, 3))
    expected = outcome(alone, run(alone))
    assert set(expected[2]) == {"broken"}
    caplog.clear()
    assert outcome(many, run(many)) == expected
    assert sum("of record 'broken'" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.slow
def test_a_run_with_workers_is_resumed_without_them(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that workers have collated ahead are no part of a checkpoint."""
    expected = outcome(config, run(config))
    killed = with_workers(config, 2)
    step, calls = JudgeTrainer.training_step, 0

    def interrupted(self: JudgeTrainer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(JudgeTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    (newest,) = (killed.output / "checkpoints").iterdir()
    read = json.loads((newest / "state.json").read_text())["processes"][0]["coverage"]["read"]
    assert newest.name == "step-00000003"
    # Twelve groups with two comparisons each in both orders, of which the broken one is one or two.
    assert 40 <= read <= 44
    again = replace(killed, data=replace(killed.data, num_workers=0))
    assert outcome(again, run(again, resume=True)) == expected


def test_a_negative_number_of_workers_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="num_workers must be at least 0; received -1"):
        replace(config.data, num_workers=-1)
