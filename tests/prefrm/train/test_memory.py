"""What a person is advised to lower where a device has too little memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrm.errors import ConfigError, ScoringError
from prefrm.judge import Judge, JudgeSpec
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
        optim=OptimConfig(steps=6, batch_size=8, pairs_per_group=1, lr=1e-3),
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


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (None, "or set optim.pairs_per_group (now null), which bounds the comparisons of a large group"),
        (4, "or lower optim.pairs_per_group (now 4)"),
        (1, None),
    ],
)
def test_the_comparisons_of_a_group_can_be_fewer_in_another_run(
    config: TrainConfig, pairs: int | None, text: str | None
) -> None:
    found = advice(replace(config, optim=replace(config.optim, pairs_per_group=pairs)))
    same_run, other_run = found.split("go on with --resume")
    assert "pairs_per_group" not in same_run
    assert ("pairs_per_group" in other_run) == (text is not None)
    assert text is None or text in other_run


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
    embed = Judge.embed

    def full(self: Judge, ids_BL: torch.Tensor, *arguments: Any) -> Any:
        if not self.training and len(ids_BL) > 1 and ids_BL.numel() > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, ids_BL, *arguments)

    monkeypatch.setattr(Judge, "embed", full)
    monkeypatch.setattr("prefrm.train.memory.TOKENS_OF_GROUP", 10)
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


def test_a_scorer_that_fails_otherwise_is_not_out_of_memory(config: TrainConfig) -> None:
    with pytest.raises(ScoringError, match="no answer"), explaining_memory(config):
        raise ScoringError("no answer") from ConnectionError("reset")


def test_other_errors_stay_what_they_are(config: TrainConfig) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_memory(config):
        raise RuntimeError("shapes differ")
