"""What a run costs: wall-clock seconds of each stage, and the most memory that it and its children held."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from prefrm.errors import missing_extra

try:
    import psutil
except ImportError as error:
    raise missing_extra("psutil", "train") from error

__all__ = ["MEBIBYTE", "Resources", "resident_bytes"]

SECONDS_BETWEEN_SAMPLES = 0.25
MEBIBYTE = 2**20


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


class Resources:
    """Measures while its block runs; memory is sampled over this process and all its descendants.

    Args:
        started: `time.monotonic()` when the run began, if that was before this object was made.

    Attributes:
        seconds: of each finished stage, by name.
        peak_rss_mb: the largest sum of resident set sizes seen, in MiB; pages that processes share
            count once for each.
    """

    def __init__(self, started: float | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_rss_mb = 0.0
        self._started = time.monotonic() if started is None else started
        self._process = psutil.Process()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Resources":
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._sampler.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the seconds of a block."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    @property
    def total_seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def _sample(self) -> None:
        while not self._done.wait(SECONDS_BETWEEN_SAMPLES):
            self.peak_rss_mb = max(self.peak_rss_mb, self._resident_bytes() / MEBIBYTE)

    def _resident_bytes(self) -> int:
        """Of all processes that can be asked: one may end in between, or belong to somebody else."""
        processes = [self._process]
        with suppress(psutil.Error):
            processes += self._process.children(recursive=True)
        total = 0
        for process in processes:
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total
