"""Functions that tests run in other processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from prefrm.config import load_config
from prefrm.flow.config import FlowConfig
from prefrm.winmatrix import FakeScorer
from tests.prefrm.flow.test_trainer import brightness, trainer_of

__all__ = ["killed", "train"]


def train(method: str, folder: Path) -> None:
    """Two iterations; the first process writes the weights."""
    trainer = trainer_of(method, rollout_batch=4, updates=2)
    for n in range(2):
        trainer.iteration(n, ["a", "b", "c", "d"])
    if Accelerator().is_main_process:
        weights = {str(n): weight.detach().clone() for n, weight in enumerate(trainer.parameters)}
        save_file(weights, folder / f"{method}-{Accelerator().num_processes}.safetensors")


def killed(config: Path, calls: int) -> None:
    """A run whose process is killed once its judge has scored `calls` images."""
    from prefrm.flow.run import run

    seen = []

    @contextmanager
    def open_scorer(name: str) -> Iterator[FakeScorer]:
        def utility(prompt: str, image: bytes) -> float:
            seen.append(prompt)
            if len(seen) > calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return brightness(prompt, image)

        yield FakeScorer(utility)

    run(load_config(FlowConfig, config), open_scorer)
