"""Experiment trackers: the numbers of each step for TensorBoard, Trackio and Weights & Biases."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TrackioCallback, WandbCallback

from prefrm.errors import MissingExtraError
from prefrm.train.callbacks import StepLogs
from prefrm.train.config import TRACKERS

__all__ = ["TensorBoard", "tracker_callbacks"]


def tracker_callbacks(names: Sequence[str], output: Path) -> list[TrainerCallback]:
    """The callbacks of these trackers; of "all", those that are installed.

    TensorBoard's events go into `output/tensorboard`. Trackio and Weights & Biases are the callbacks of
    `transformers`, with the environment variables that those read, such as WANDB_PROJECT.

    Raises:
        MissingExtraError: a tracker that is named is not installed.
    """
    installed = [name for name in TRACKERS if find_spec(name) is not None]
    if "all" in names:
        names = installed
    if missing := [name for name in names if name not in installed]:
        raise MissingExtraError(
            f"report_to names {', '.join(missing)}, not installed here. Install with "
            f"`pip install {' '.join(missing)}`, or leave it out of report_to."
        )
    made: dict[str, Callable[[], TrainerCallback]] = {
        "tensorboard": partial(TensorBoard, output / "tensorboard"),
        "trackio": TrackioCallback,
        "wandb": WandbCallback,
    }
    return [made[name]() for name in dict.fromkeys(names)]


class TensorBoard(StepLogs):
    """Writes every logged number into an event file in a folder; a resumed run purges later steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=state.global_step + 1)

    def on_step_log(self, state: TrainerState, control: TrainerControl, logs: dict[str, float]) -> None:
        if self._writer is None:
            return
        for name, value in logs.items():
            self._writer.add_scalar(name, value, state.global_step)
        # As the metrics file, it is complete up to each checkpoint, even if the run is killed.
        if control.should_save:
            self._writer.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._writer is not None:
            self._writer.close()
