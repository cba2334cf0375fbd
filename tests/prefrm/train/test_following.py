"""What a person sees and chooses while a judge learns: validation, early stopping, precision, recomputing."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from prefrm.engine import Engine
from prefrm.errors import ConfigError, MissingExtraError
from prefrm.eval import evaluate
from prefrm.judge import Judge, JudgeSpec
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
from prefrm.train.mixing import Mixture
from prefrm.train.reporting import TensorBoard, tracker_callbacks
from prefrm.train.trainer import JudgeTrainer
from prefrm.train.validation import Validation


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=brightness(train=6, validation=3), test=None),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=6, batch_size=2, lr=1e-3),
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
    # The last numbers are those of the exported judge on the same groups under its own best calibration.
    judge = Engine.from_bundle(result.bundle, device="cpu").judge
    groups = list(read_groups(config.data.path, "validation"))[:2]
    plain_evaluation = evaluate(Engine(judge), groups)
    expected = plain_evaluation.calibrated(plain_evaluation.fitted_calibration()).metrics
    assert expected.log_loss < plain_evaluation.metrics.log_loss
    assert lines[-1]["validation_log_loss"] == pytest.approx(expected.log_loss, abs=1e-5)
    assert lines[-1]["validation_accuracy"] == expected.accuracy.value
    # Looking changes nothing.
    assert [line["loss"] for line in lines] == [line["loss"] for line in metrics(plain)]


def test_how_certain_a_judge_is_does_not_decide_what_is_best(
    judge: Judge, brightness: Callable[..., Path]
) -> None:
    """Both judges give the same verdicts, and a calibration is fitted to whichever is exported."""
    groups = list(read_groups(brightness(validation=40), "validation"))
    validation = Validation(judge, lambda: iter(groups), every=1)
    plain, watched = [], []
    for scale in (100.0, 1000.0):
        judge.head.log_scale.data.fill_(math.log(scale))
        plain.append(evaluate(Engine(judge), groups).metrics.log_loss)
        watched.append(validation._measure()["validation_log_loss"])
    assert plain[1] > plain[0] + 0.5
    assert watched[1] == pytest.approx(watched[0], abs=0.03)


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
    assert "4 steps (stopped early, of 6) of 2 groups" in (result.bundle / "README.md").read_text()
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


def test_a_tracker_that_is_not_installed_is_named_with_its_command(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read: the data and the base model are not there."""
    monkeypatch.setattr("prefrm.train.reporting.find_spec", lambda name: name == "tensorboard" or None)
    absent = replace(config, report_to=("wandb", "tensorboard", "trackio"))
    absent = replace(absent, data=DataConfig(path=Path("nowhere")), judge=JudgeSpec(base_model="nowhere"))
    with pytest.raises(MissingExtraError, match=r"names wandb, trackio, .*`pip install wandb trackio`"):
        run(absent)


def test_trackers_are_named_as_transformers_names_them(config: TrainConfig, tmp_path: Path) -> None:
    assert config.trackers == () == replace(config, report_to=("none",)).trackers
    assert replace(config, report_to="wandb").trackers == ("wandb",)
    assert replace(config, report_to=("wandb", "trackio")).trackers == ("wandb", "trackio")
    with pytest.raises(ValueError, match="tensorboard, trackio, wandb, or all, or none; received 'mlflow'"):
        replace(config, report_to=("wandb", "mlflow"))
    named = {type(callback).__name__ for callback in tracker_callbacks(("all",), tmp_path)}
    installed = {"tensorboard": "TensorBoard", "trackio": "TrackioCallback", "wandb": "WandbCallback"}
    assert named == {made for name, made in installed.items() if find_spec(name)}


def test_a_training_prints_its_numbers_and_no_noise_of_libraries(
    config: TrainConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    run(replace(config, evaluation=EvaluationConfig(every=3, groups=2)))
    err = capfd.readouterr().err
    # Bars of loading and deprecations.
    assert not re.search(r"it/s|examples/s|\d%|Warning", err)
    third, last, end = (line for line in err.splitlines() if line.startswith(("step", "training")))
    assert re.fullmatch(r"step 3: validation log loss 0\.\d{4}, accuracy \d\.\d{4}", third)
    assert last.startswith("step 6: validation log loss ")
    numbers = metrics(config)[-1]
    assert end == f"training: 6/6, loss {numbers['loss']:.4f}, lr {numbers['learning_rate']:.2e}"


def test_tensorboard_has_every_step(config: TrainConfig) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(replace(config, report_to="tensorboard"))
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
