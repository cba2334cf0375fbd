"""Numbers the stages of the quickstart, times them, and says in a line what each showed."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from prefrm.resources import Resources

__all__ = ["Narrator"]


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
