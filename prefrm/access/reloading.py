"""A value that is read from files and kept up to date while the server runs."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from prefrm.errors import ConfigError

__all__ = ["Reloading"]

logger = logging.getLogger(__name__)

# How old the value may be, in seconds.
RECHECK_S = 1.0
# How long a caller waits for the files. On a network file system that hangs, the read goes on in its thread.
WAIT_S = 0.1

Value = TypeVar("Value")


class Reloading(Generic[Value]):
    """The newest valid value. Safe to use from several threads, and from an event loop.

    Args:
        read: reads the value; takes the previous one, which it returns if nothing changed, or None at first.
            Raises `ConfigError` if the files are not valid: the previous value then stays in use.
        what: the files, for the log.
        kept: what stays in use meanwhile, for the log.

    Raises:
        ConfigError: of `read`, the first time.
    """

    def __init__(self, read: Callable[[Value | None], Value], *, what: str, kept: str) -> None:
        self._read, self._what, self._kept = read, what, kept
        self._value = read(None)
        self._checked = time.monotonic()
        self._problem = ""
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def latest(self) -> Value:
        """The value, read again if it may be out of date."""
        with self._lock:
            now = time.monotonic()
            reading = self._reader is not None and self._reader.is_alive()
            if now >= self._checked + RECHECK_S and not reading:
                self._checked = now
                self._reader = threading.Thread(target=self._reload, name="reload", daemon=True)
                self._reader.start()
                self._reader.join(WAIT_S)
                if self._reader.is_alive():
                    self._report(f"reading {self._what} takes longer than {WAIT_S:g} s")
            return self._value

    def _reload(self) -> None:
        try:
            self._value = self._read(self._value)
            self._problem = ""
        except ConfigError as error:
            self._report(str(error))

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            logger.warning("%s; %s", problem, self._kept)
        self._problem = problem
