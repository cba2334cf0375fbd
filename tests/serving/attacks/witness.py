"""A well-behaved client beside an attack: latencies of small requests and readiness, memory of the server."""

import http.client
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import psutil
from PIL import Image

from prefrm.client import connect
from prefrm.errors import ScoringError
from prefrm.winmatrix import Group
from tests.serving.attacks.target import Target

# Seconds between two requests of one kind, and after which a request or a probe has failed.
EVERY_S = 0.1
DEADLINE_S = 20.0
MEBIBYTE = 2**20


@dataclass(slots=True)
class Latencies:
    """Of requests that were answered rightly, in seconds, and the number of those that were not."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile_ms(self, share: float) -> float:
        """Failures count as the deadline."""
        return 1000 * float(np.percentile([*self.seconds, *[DEADLINE_S] * self.failed], share))


@dataclass(slots=True)
class Seen:
    """What was measured while a block ran; memory is the largest resident size of the server in MiB."""

    grpc: Latencies = field(default_factory=Latencies)
    http: Latencies = field(default_factory=Latencies)
    readiness: Latencies = field(default_factory=Latencies)
    memory: float = 0.0


@contextmanager
def watching(target: Target) -> Iterator[Seen]:
    """Ask a server for small things all the time, from a thread for each kind, while the block runs."""
    seen, over = Seen(), threading.Event()
    jobs: list[Callable[[], None]] = [
        lambda: _repeated(_scoring(f"grpc://{target.grpc}/judge", target.token), seen.grpc, over),
        lambda: _repeated(_scoring(f"http://{target.http}/judge", target.token), seen.http, over),
        lambda: _repeated(_readiness(target.http), seen.readiness, over),
        lambda: _sampled(target.pid, seen, over),
    ]
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def small_group(number: int) -> Group:
    """A pair of 64 x 64 pixels that no cache has."""
    random = np.random.default_rng(number)
    images = []
    for _ in range(2):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, format="PNG")
        images.append(buffer.getvalue())
    return Group(prompt="a red circle above a blue square", candidates=tuple(images))


def _repeated(ask: Callable[[int], None], latencies: Latencies, over: threading.Event) -> None:
    number = time.monotonic_ns()
    while not over.is_set():
        number += 1
        started = time.monotonic()
        try:
            ask(number)
            latencies.seconds.append(time.monotonic() - started)
        except (ScoringError, OSError, http.client.HTTPException):
            latencies.failed += 1
        over.wait(EVERY_S)


def _scoring(url: str, token: str) -> Callable[[int], None]:
    scorer = connect(url, token=token or None, deadline=DEADLINE_S)

    def ask(number: int) -> None:
        group = small_group(number)
        (matrix,) = scorer.score([group])
        assert matrix.valid[0, 1]

    return ask


def _readiness(address: str) -> Callable[[int], None]:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)

    def ask(_: int) -> None:
        try:
            connection.request("GET", "/v2/health/ready")
            with connection.getresponse() as response:
                response.read()
                if response.status != 200:
                    raise OSError(f"not ready: {response.status}")
        except BaseException:
            connection.close()
            raise

    return ask


def _sampled(pid: int, seen: Seen, over: threading.Event) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while not over.wait(0.01):
            seen.memory = max(seen.memory, process.memory_info().rss / MEBIBYTE)
