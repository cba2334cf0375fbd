"""Numbers the stages of the quickstart, times them, and says in a line what each showed."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from prefrm.resources import Resources

__all__ = ["Narrator", "quiet"]


def quiet() -> None:
    """Keep the libraries below from talking between the lines: their bars, deprecations and advice."""
    disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)
    # It advises whenever a completion gets no reward; here that is a program that draws nothing.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)


class Narrator:
    """Prints to standard output; progress bars go to standard error in between."""

    def __init__(self, stages: int, resources: Resources) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._resources = resources
        self._stages = stages
        self._number = 0

    @contextmanager
    def stage(self, title: str, what: str) -> Iterator[None]:
        """Announce a stage and measure it under its title in lower case."""
        self._number += 1
        self._console.print(f"[bold]{self._number}/{self._stages} {title}:[/bold] {what}")
        with self._resources.stage(title.lower()):
            yield

    def say(self, line: str) -> None:
        """A line under the current stage."""
        self._console.print(f"    {line}", markup=False)
