"""The judges of an application: by name, each opened in the background and asked by one caller at a time."""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType

from prefrm.errors import ConfigError
from prefrm.shutdown import in_daemon_thread
from prefrm.winmatrix import (
    ConcurrentScorer,
    Group,
    IdentifiedScorer,
    Inputs,
    WinMatrix,
    inputs_of,
    score_all,
)

__all__ = ["Judges", "Opener"]

Opener = Callable[[], AbstractContextManager[IdentifiedScorer]]
"""Opens a scorer, such as `functools.partial(prefrm.scorers.open_scorer, target)`."""


class Judges:
    """Scorers by name. Loading starts at once, one judge after another, and delays no page.

    Safe to use from several threads. As a context manager, it closes the scorers at the end of the block.

    Args:
        openers: by the names that people see; the order is kept.
        trained: by the same names, what is known of the judge's training (`Manifest.trained`).
    """

    def __init__(self, openers: Mapping[str, Opener], trained: Mapping[str, str] | None = None) -> None:
        self._trained = dict(trained or {})
        self._stack = ExitStack()
        self._opening = threading.Lock()
        self._opened: dict[str, Future[tuple[IdentifiedScorer, AbstractContextManager[object]]]] = {
            name: in_daemon_thread(functools.partial(self._open, opener)) for name, opener in openers.items()
        }

    @property
    def names(self) -> list[str]:
        """In the order of the openers."""
        return list(self._opened)

    def inputs(self, name: str) -> Inputs:
        """What the scorer reads. Waits until it is open; raises what opening it raised."""
        return inputs_of(self._future(name).result()[0])

    def trained(self, name: str) -> str:
        """What groups the judge was trained with, as part of a line; "" if that is not known."""
        return self._trained.get(name, "")

    def identity(self, name: str) -> str:
        """What tells the scorer's answers from those of another. Waits and raises as `inputs`."""
        return self._future(name).result()[0].identity()

    def score(self, name: str, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; of a group that the device cannot hold, nothing is judged.

        Waits until the scorer is open, and for its other callers unless it takes several at once.

        Raises:
            ConfigError: there is no scorer of that name.
            PrefrmError: what opening it or its `score` raised.
        """
        scorer, turn = self._future(name).result()
        with turn:
            return score_all(scorer, groups)

    def close(self) -> None:
        """Close the scorers that are open. One that is still being opened is closed by the process's end."""
        self._stack.close()

    def __enter__(self) -> "Judges":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _future(self, name: str) -> Future[tuple[IdentifiedScorer, AbstractContextManager[object]]]:
        if name not in self._opened:
            raise ConfigError(f"there is no judge {name!r}; there are {', '.join(self._opened) or 'none'}")
        return self._opened[name]

    def _open(self, opener: Opener) -> tuple[IdentifiedScorer, AbstractContextManager[object]]:
        # Two that load at once need the memory of both, and each is slower.
        with self._opening:
            scorer = self._stack.enter_context(opener())
        concurrent = isinstance(scorer, ConcurrentScorer)
        return scorer, nullcontext() if concurrent else threading.Lock()
