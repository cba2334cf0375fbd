"""What a person is advised to lower where a device has too little memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrm.errors import ConfigError, ScoringError
from prefrm.judge import Judge, JudgeProcessor, JudgeSpec
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    OptimConfig,
    TrainConfig,
    run,
)
from prefrm.train.memory import explaining_memory


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=brightness(train=6, validation=3), test=None),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=6, batch_size=8, lr=1e-3),
        device="cpu",
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
    ids=["accelerator", "cpu", "python"],
)
def test_too_little_memory_names_what_to_lower(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Judge, "forward", full)
    with pytest.raises(ConfigError, match="ran out of memory while training") as caught:
        run(config)
    for text in (
        "optim.batch_size (now 8)",
        "gradient_checkpointing=true",
        "max_pixels (now that of",
        "(now 4)",
    ):
        assert text in str(caught.value)
    assert caught.value.__cause__ is error


def advice(config: TrainConfig) -> str:
    with pytest.raises(ConfigError) as caught, explaining_memory(config):
        raise MemoryError
    return str(caught.value)


def test_large_groups_are_named_where_they_are_read_as_one(config: TrainConfig) -> None:
    isolated = replace(config.judge, attention="isolated")
    assert "lower optim.group_tokens (now 4096), where groups are large" in advice(
        replace(config, judge=isolated)
    )
    assert "group_tokens" not in advice(config)


def test_what_smaller_batches_change_is_said(config: TrainConfig) -> None:
    assert "by the same factor, which changes nothing but rounding" in advice(config)
    dropping = replace(config, adapter=AdapterConfig(dropout=0.1))
    assert "which changes what adapter.dropout (now 0.1) drops, and rounding" in advice(dropping)


def test_advice_is_of_what_is_set(config: TrainConfig) -> None:
    optim = replace(config.optim, batch_size=1, gradient_checkpointing=True)
    spec = replace(config.judge, max_pixels=4096)
    with (
        pytest.raises(ConfigError) as caught,
        explaining_memory(replace(config, adapter=None, optim=optim, judge=spec, dtype="bfloat16")),
    ):
        raise MemoryError
    message = str(caught.value)
    assert "start over and lower judge.max_pixels (now 4096) or train an adapter" in message
    assert "batch_size" not in message and "gradient_checkpointing" not in message and "dtype" not in message


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"dtype": "float32"}, True),
        # On an accelerator that is bfloat16 already.
        ({"dtype": "auto"}, False),
        # A weight of 8 bits does not move by a small step.
        ({"dtype": "float32", "adapter": None}, False),
        ({"dtype": "float32", "optim": OptimConfig(precision="fp16")}, False),
    ],
    ids=["float32", "auto", "no adapter", "fp16"],
)
def test_bfloat16_is_advised_where_it_helps(
    config: TrainConfig, changes: dict[str, Any], given: bool
) -> None:
    with pytest.raises(ConfigError) as caught, explaining_memory(replace(config, **changes)):
        raise MemoryError
    assert ("set dtype=bfloat16" in str(caught.value)) == given


@pytest.mark.parametrize("place", ["validation", "export"])
def test_too_little_memory_to_score_names_a_setting_that_there_is(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """An engine reads no more at once than a training step, so the training's setting lowers both."""
    sizes: list[int] = []
    collate = JudgeProcessor.collate

    def full(self: JudgeProcessor, sequences: Any, length: int = 0) -> Any:
        sizes.append(sum(map(len, sequences)))
        if len(sequences) > 1 and sizes[-1] > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return collate(self, sequences, length)

    monkeypatch.setattr(JudgeProcessor, "collate", full)
    monkeypatch.setattr("prefrm.train.memory.TOKENS_OF_EXAMPLE", 100)
    evaluation = EvaluationConfig(every=2) if place == "validation" else None
    one = replace(config, device="auto", evaluation=evaluation, checkpoint=CheckpointConfig(save_every=1))
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(
        ConfigError, match="ran out of memory while measuring the judge; lower optim"
    ) as caught:
        run(one)
    assert ("device=cpu (now auto)" in str(caught.value)) == (place == "export")
    less = replace(one.optim, batch_size=4, accumulation=2)
    assert "--resume" in str(caught.value)
    assert run(replace(one, optim=less), resume=True).bundle.is_dir()
    assert max(sizes) > 400 and sizes[-1] <= 400


def test_a_scorer_that_fails_otherwise_is_not_out_of_memory(config: TrainConfig) -> None:
    with pytest.raises(ScoringError, match="no answer"), explaining_memory(config):
        raise ScoringError("no answer") from ConnectionError("reset")


def test_other_errors_stay_what_they_are(config: TrainConfig) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_memory(config):
        raise RuntimeError("shapes differ")
