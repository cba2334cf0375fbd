"""Callbacks of the training loop: progress and the metrics file."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefrm.jsonlines import JsonLines
from prefrm.progress import Tracker

__all__ = ["VALIDATION", "MetricsFile", "ReportProgress", "StepLogs"]

VALIDATION = "validation_"
"""Prefix of the names of validation metrics in the log of a step."""


class StepLogs(TrainerCallback, ABC):
    """Passes on the log of each step, but not the summary that ends the training."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.on_step_log(state, control, logs)

    @abstractmethod
    def on_step_log(self, state: TrainerState, control: TrainerControl, logs: dict[str, float]) -> None:
        """Handle the log of a step."""


class ReportProgress(StepLogs):
    """Shows step, loss and learning rate, and prints a line for each validation."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def on_step_log(self, state: TrainerState, control: TrainerControl, logs: dict[str, float]) -> None:
        names = {name.removeprefix(VALIDATION): value for name, value in logs.items() if VALIDATION in name}
        if names:
            numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in names.items())
            self._tracker.say(f"step {state.global_step}: validation {numbers}")
        self._tracker(state.global_step, f"loss {logs['loss']:.4f}, lr {logs['learning_rate']:.2e}")


class MetricsFile(StepLogs):
    """Writes one JSON line to a file for each optimizer step: step, loss, grad_norm, learning_rate, epoch.

    A resumed training removes the lines of the steps that it repeats.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: JsonLines | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Truncate the file after the step that the run continues from."""
        if state.is_world_process_zero:
            self._file = JsonLines(self._path, key="step", done=state.global_step)

    def on_step_log(self, state: TrainerState, control: TrainerControl, logs: dict[str, float]) -> None:
        if self._file is not None:
            self._file.add({"step": state.global_step, **logs}, sync=control.should_save)
