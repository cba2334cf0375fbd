"""Every kind of judge and of candidate: a run that is resumed gives the judge of an uninterrupted one."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefrm.judge import JudgeSpec
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    OptimConfig,
    TrainConfig,
    run,
)
from prefrm.train.trainer import JudgeTrainer
from prefrm.train.validation import Validation

KINDS: dict[str, dict[str, Any]] = {
    "late": {},
    "joint": {"attention": "joint"},
    "scalar": {"head": "scalar"},
    "embedding": {"head": "embedding"},
    "nf4": {"quantize": "nf4"},
    "edit": {"template": "fit-late-v1"},
    "video": {"kind": "video", "frames": 2},
    "text": {"kind": "text"},
}


class Interrupted(Exception):
    pass


@pytest.fixture
def config(wide_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    """An epoch ends within a step; each step draws comparisons, and random numbers for dropout."""
    return TrainConfig(
        output=tmp_path / "whole",
        judge=JudgeSpec(base_model=str(wide_checkpoint)),
        data=DataConfig(path=brightness(train=4, validation=2), validation=None, test=None),
        adapter=AdapterConfig(rank=4, alpha=8, dropout=0.2),
        optim=OptimConfig(steps=4, batch_size=3, pairs_per_group=2, lr=1e-2, weight_decay=0.1),
        checkpoint=CheckpointConfig(save_every=2),
        device="cpu",
    )


@contextmanager
def interrupted(method: Callable[..., Any], call: int) -> Iterator[Callable[..., Any]]:
    """Gives the method, which raises at that call, and expects that it is reached."""
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Interrupted
        return method(*arguments, **options)

    with pytest.raises(Interrupted):
        yield counted


def weights(config: TrainConfig) -> dict[str, str]:
    bundle = config.output / "bundle"
    paths = sorted(bundle.rglob("*.safetensors"))
    return {str(path.relative_to(bundle)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def losses(config: TrainConfig) -> list[float]:
    return [json.loads(line)["loss"] for line in (config.output / "metrics.jsonl").read_text().splitlines()]


def die_in_step(config: TrainConfig, step: int) -> None:
    with interrupted(JudgeTrainer.training_step, step) as method, pytest.MonkeyPatch.context() as patch:
        patch.setattr(JudgeTrainer, "training_step", method)
        run(config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_judge_of_any_kind_is_that_of_a_whole_run(
    config: TrainConfig, brightness: Callable[..., Path], kind: str
) -> None:
    brightness(kind if kind in ("edit", "video", "text") else "image", train=4)
    whole = replace(config, judge=JudgeSpec(base_model=config.judge.base_model, **KINDS[kind]))
    run(whole)
    killed = replace(whole, output=config.output.with_name("killed"))
    die_in_step(killed, 4)
    assert [path.name for path in (killed.output / "checkpoints").iterdir()] == ["step-00000002"]
    run(killed, resume=True)
    assert losses(killed) == losses(whole)
    assert len(weights(whole)) == 2
    assert weights(killed) == weights(whole)


def scripted(patch: pytest.MonkeyPatch, log_losses: list[float]) -> None:
    """Validation says these log losses in turn."""
    told = iter(log_losses)
    patch.setattr(Validation, "_measure", lambda self: {"validation_log_loss": next(told)})


@pytest.fixture
def patient(config: TrainConfig) -> TrainConfig:
    """With `scripted`, a run that ends after the fourth of eight steps, with the weights of the second."""
    return replace(
        config,
        data=replace(config.data, validation="validation"),
        optim=replace(config.optim, steps=8),
        evaluation=EvaluationConfig(every=1, patience=2),
    )


def test_a_resumed_run_stops_early_where_the_whole_one_does(
    patient: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.9, 0.5, 0.6, 0.7])
    run(patient)
    # Resumed after the second step, with the lowest log loss so far; then in the middle of the export.
    killed = replace(patient, output=patient.output.with_name("killed"))
    scripted(monkeypatch, [0.9, 0.5, 0.6])
    die_in_step(killed, 4)
    scripted(monkeypatch, [0.6, 0.7])
    hashing = "prefrm.bundle.writing.hash_files"
    with interrupted(lambda folder: {}, 1) as method, monkeypatch.context() as patch:
        patch.setattr(hashing, method)
        run(killed, resume=True)
    assert not (killed.output / "bundle").exists()
    scripted(monkeypatch, [])
    run(killed, resume=True)
    assert losses(killed) == losses(patient)
    assert len(losses(patient)) == 4
    assert weights(killed) == weights(patient)
    cards = [(one.output / "bundle" / "README.md").read_text() for one in (patient, killed)]
    assert cards[0] == cards[1]
    assert "4 steps (stopped early, of 8)" in cards[0]
