"""Trainings that kill themselves: in a step, at a file of a checkpoint, in the export."""

import os
import signal
from pathlib import Path

from prefrm import checkpoints
from prefrm.bundle import writing
from prefrm.config import load_config
from prefrm.train import TrainConfig, run
from prefrm.train.callbacks import ReportProgress


def train(config: Path, place: str, number: int) -> None:
    """Run a training until it kills itself with SIGKILL.

    `place` is "step" (after that optimizer step), "file" (when that file of a checkpoint is forced to disk)
    or "export" (when the files of the bundle are there, and not their hashes).
    """
    count = 0

    def die_at_the_number(*args: object, **kwargs: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if place == "step":
        ReportProgress.on_step_end = die_at_the_number  # type: ignore[method-assign]
    elif place == "export":
        writing.hash_files = die_at_the_number  # type: ignore[assignment]
    else:
        checkpoints._force_to_disk = die_at_the_number  # type: ignore[assignment]
    run(load_config(TrainConfig, config))
