"""The benchmark of the server: a judge behind it, a model that takes no time beside MLServer, overload."""

import os
import subprocess
from pathlib import Path

import torch

from prefrm.bench.meters import describe_device
from prefrm.errors import ConfigError
from prefrm.progress import track
from serving.bench.overload import measure_overload
from serving.bench.report import ServerReport
from serving.bench.rounds import JudgeRounds, Settings, SmallRounds
from serving.bench.scorers import JUDGES

__all__ = ["bench_server", "read_settings"]


def read_settings(
    *, quick: bool = False, mlserver: Path | None = None, threads: int | None = None
) -> Settings:
    """What the command line asks for.

    Args:
        quick: one round of everything: less than a minute on two cores.
        mlserver: the interpreter of an environment that has MLServer.
        threads: of torch, for the judge; None leaves one core to the wires and the load.

    Raises:
        ConfigError: it is none, or has no MLServer.
    """
    if mlserver is not None:
        _check(mlserver)
    threads = threads or max(1, (os.cpu_count() or 1) - 1)
    if quick:
        return Settings(
            rounds=1,
            groups=12,
            single=4,
            seconds=1.0,
            overload_seconds=3.0,
            http=False,
            threads=threads,
            mlserver=mlserver,
        )
    return Settings(
        rounds=5,
        groups=64,
        single=24,
        seconds=2.0,
        overload_seconds=60.0,
        http=True,
        threads=threads,
        mlserver=mlserver,
    )


def bench_server(settings: Settings) -> ServerReport:
    """Measure everything, one after the other.

    Raises:
        ScoringError: a server gave a wrong answer or none, or refused nothing of an overload.
    """
    with JudgeRounds(settings) as judge:
        with track("judge (rounds)", settings.rounds) as advance:
            rows = judge.run(advance)
        added = judge.added_ms
        overload = measure_overload(
            judge.load, judge.server, seconds=settings.overload_seconds, groups=settings.groups
        )
    with track("two layers (rounds)", settings.rounds) as advance:
        rows += SmallRounds(settings).run(advance)
    return ServerReport(
        device=_described(),
        rounds=settings.rounds,
        threads=settings.threads,
        image_tokens=JUDGES["judge"].image_tokens,
        rows=tuple(rows),
        added_ms=added,
        overload=overload,
    )


def _described() -> str:
    """The machine, for people: the processor's name without torch's threads, and the cores."""
    processor, _, _ = describe_device(torch.device("cpu")).rpartition(", ")
    return f"{processor}, {os.cpu_count()} cores"


def _check(python: Path) -> None:
    try:
        subprocess.run([str(python), "-c", "import mlserver"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"--mlserver {python}: it cannot import mlserver; give the python of a virtual environment with "
            "`pip install mlserver`, as `make bench-server` makes it"
        ) from error
