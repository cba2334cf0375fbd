"""The numbers of each step as TensorBoard reads them. Needs `tensorboard`, of the extra `train`."""

from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from prefrm.errors import missing_extra
from prefrm.train.callbacks import StepLogs

__all__ = ["TensorBoard"]


class TensorBoard(StepLogs):
    """Writes every logged number into an event file in a folder; a resumed run takes back later steps.

    Raises:
        MissingExtraError: `tensorboard` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "train") from error
        self._open: Any = SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._writer = self._open(str(self._folder), purge_step=state.global_step + 1)

    def on_step_log(self, state: TrainerState, control: TrainerControl, logs: dict[str, float]) -> None:
        if self._writer is None:
            return
        for name, value in logs.items():
            self._writer.add_scalar(name, value, state.global_step)
        # As the metrics file, it has what a checkpoint knows, whatever comes then.
        if control.should_save:
            self._writer.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._writer is not None:
            self._writer.close()
