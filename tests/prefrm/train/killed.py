"""A training that kills itself: `python killed.py CONFIG PLACE NUMBER [--resume]`.

PLACE is "step" (after that optimizer step), "file" (when that file of a checkpoint is forced to the disk) or
"export" (when the files of the bundle are there, and not their hashes).
"""

import os
import signal
import sys
from pathlib import Path

from prefrm.bundle import writing
from prefrm.config import load_config
from prefrm.train import TrainConfig, checkpoints, run
from prefrm.train.callbacks import ReportProgress


def die_at(number: int) -> None:
    count = 0

    def step(*args: object, **kwargs: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if sys.argv[2] == "step":
        ReportProgress.on_step_end = step  # type: ignore[method-assign]
    elif sys.argv[2] == "export":
        writing.hash_files = step  # type: ignore[assignment]
    else:
        checkpoints._force_to_disk = step  # type: ignore[assignment]


if __name__ == "__main__":
    die_at(int(sys.argv[3]))
    run(load_config(TrainConfig, Path(sys.argv[1])), resume="--resume" in sys.argv)
