"""What a person sees and chooses while a judge learns: validation, early stopping, precision, memory."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from prefrm.engine import Engine
from prefrm.errors import ConfigError, ScoringError
from prefrm.eval import evaluate
from prefrm.judge import Judge, JudgeProcessor, JudgeSpec
from prefrm.records import read_groups
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    OptimConfig,
    TrainConfig,
    fit,
    run,
)
from prefrm.train.memory import explaining_memory
from prefrm.train.mixing import Mixture
from prefrm.train.tensorboard import TensorBoard
from prefrm.train.trainer import JudgeTrainer
from prefrm.train.validation import Validation


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


def metrics(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


def test_validation_stands_in_the_line_of_its_step(config: TrainConfig) -> None:
    plain = replace(config, output=config.output.with_name("plain"))
    run(plain)
    result = run(replace(config, evaluation=EvaluationConfig(every=4, groups=2)))
    lines = metrics(config)
    assert [line["step"] for line in lines if "validation_log_loss" in line] == [4, 6]
    # What it says at the end is what the exported judge says of the same groups, without its temperature.
    judge = Engine.from_bundle(result.bundle, device="cpu").judge
    groups = list(read_groups(config.data.path, "validation"))[:2]
    expected = evaluate(Engine(judge), groups).metrics
    assert lines[-1]["validation_log_loss"] == pytest.approx(expected.log_loss, abs=1e-5)
    assert lines[-1]["validation_accuracy"] == expected.accuracy.value
    # Looking changes nothing.
    assert [line["loss"] for line in lines] == [line["loss"] for line in metrics(plain)]


def head_of(bundle: Path) -> torch.Tensor:
    return load_file(bundle / "head.safetensors")["log_scale"]


def scripted(monkeypatch: pytest.MonkeyPatch, log_losses: list[float]) -> list[torch.Tensor]:
    """Validation says these log losses in turn; returns the head's scale at each."""
    seen: list[torch.Tensor] = []

    def measure(self: Validation) -> dict[str, float]:
        seen.append(self._judge.head.log_scale.detach().clone())
        return {"validation_log_loss": log_losses[len(seen) - 1]}

    monkeypatch.setattr(Validation, "_measure", measure)
    return seen


def test_patience_ends_the_training_and_the_best_weights_are_exported(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scripted(monkeypatch, [0.9, 0.5, 0.6, 0.5, 0.1])
    patient = EvaluationConfig(every=1, patience=2)
    result = run(replace(config, evaluation=patient))
    # The fourth is as low as the second, which is not lower.
    assert [line["step"] for line in metrics(config)] == [1, 2, 3, 4]
    assert head_of(result.bundle).equal(seen[1])
    assert "4 steps (stopped early, of 6) of 8 comparisons" in (result.bundle / "README.md").read_text()
    assert not seen[1].equal(seen[3])


def test_patience_survives_an_interruption(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 5, long after the best validation; resumed after 3, it waits from there."""
    patient = replace(
        config, evaluation=EvaluationConfig(every=1, patience=4), checkpoint=CheckpointConfig(save_every=3)
    )
    step = JudgeTrainer.training_step
    calls = 0

    def interrupted(self: JudgeTrainer, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        seen = scripted(patch, [0.5, 0.6, 0.7, 0.8])
        patch.setattr(JudgeTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(patient)
    with monkeypatch.context() as patch:
        scripted(patch, [0.8, 0.9])
        result = run(patient, resume=True)
    assert [line["step"] for line in metrics(config)] == [1, 2, 3, 4, 5]
    assert head_of(result.bundle).equal(seen[0])
    assert not seen[0].equal(seen[3])


def test_validation_needs_its_split(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="evaluation needs a validation split"):
        replace(config, evaluation=EvaluationConfig(), data=replace(config.data, validation=None))


def test_tensorboard_has_every_step(config: TrainConfig) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(replace(config, tensorboard=True))
    events = EventAccumulator(str(config.output / "tensorboard")).Reload().Scalars("loss")
    assert [event.step for event in events] == list(range(1, 7))
    assert [event.value for event in events] == pytest.approx([line["loss"] for line in metrics(config)])


def test_tensorboard_has_what_a_checkpoint_knows(tmp_path: Path) -> None:
    """Read beside the writer, which is not closed, as after a kill."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = TensorBoard(tmp_path)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    for step in range(1, 7):
        state.global_step = step
        control.should_save = step == 6
        callback.on_log(arguments, state, control, logs={"loss": float(step)})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    callback.on_train_end(arguments, state, control)


def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2MLP

    forward, calls = Qwen2MLP.forward, []

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls[-1] += self.training
        return forward(self, *arguments, **options)

    monkeypatch.setattr(Qwen2MLP, "forward", counted)
    curves = []
    for wanted in (False, True):
        calls.append(0)
        one = replace(
            config,
            output=config.output / str(wanted),
            optim=replace(config.optim, steps=2, gradient_checkpointing=wanted),
        )
        run(one)
        curves.append([line["loss"] for line in metrics(one)])
    assert calls[1] == 2 * calls[0]
    assert curves[0] == curves[1]


def test_bf16_rounds_the_forward_pass_and_not_the_weights(config: TrainConfig) -> None:
    single = replace(config, output=config.output / "float32")
    half = replace(config, output=config.output / "bf16", optim=replace(config.optim, precision="bf16"))
    for one in (single, half):
        run(one)
    expected, found = ([line["loss"] for line in metrics(one)] for one in (single, half))
    assert found != expected
    assert found == pytest.approx(expected, abs=0.05)
    weights = load_file(half.output / "bundle" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_fp16_on_the_cpu_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="fp16 needs an accelerator"):
        run(replace(config, optim=replace(config.optim, precision="fp16")))


def test_fp16_is_refused_with_weights_of_any_other_type(judge: Judge, config: TrainConfig) -> None:
    """On a device that computes nothing: it is refused before anything is computed."""
    half = replace(config.optim, precision="fp16")
    for dtype in (torch.bfloat16, torch.float16):
        judge.to("meta").model.to(dtype)
        with pytest.raises(
            ConfigError, match=f"fp16 needs weights of float32, and .* {dtype}".replace("torch.", "")
        ):
            fit(judge, Mixture([], seed=0, weights=[1.0]), half, output=config.output, seed=0)


def test_weights_of_few_digits_that_learn_are_warned_of(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    short = replace(config, dtype="bfloat16", optim=replace(config.optim, steps=1))
    run(short)
    assert "round" not in caplog.text
    run(replace(short, output=config.output / "whole", adapter=None))
    assert "weights that learn are bfloat16, which rounds small steps away" in caplog.text


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

    def full(self: JudgeProcessor, sequences: Any) -> Any:
        sizes.append(len(sequences))
        if len(sequences) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return collate(self, sequences)

    monkeypatch.setattr(JudgeProcessor, "collate", full)
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
    assert max(sizes) > 4 and sizes[-1] <= 4


def test_a_scorer_that_fails_otherwise_is_not_out_of_memory(config: TrainConfig) -> None:
    with pytest.raises(ScoringError, match="no answer"), explaining_memory(config):
        raise ScoringError("no answer") from ConnectionError("reset")


def test_other_errors_stay_what_they_are(config: TrainConfig) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_memory(config):
        raise RuntimeError("shapes differ")
