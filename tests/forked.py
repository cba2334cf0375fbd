"""Processes that start with `prefrm.train` imported: each is forked from one that took seconds to import it.

For tests that kill a process, interrupt it or run several side by side, and would otherwise wait for the same
imports each time. What a program does from its first line on needs a `subprocess`.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

__all__ = ["command", "ranks", "start"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["prefrm.train"])
PATIENCE_S = 120


def start(
    function: Callable[..., Any], *arguments: Any, log: Path, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Call a function of a module in a new process, whose standard output and error go to `log`.

    Its exit status is that of a program: 1 after an exception, -9 after SIGKILL. Whoever starts it ends it.
    """
    variables = {**os.environ, **(environment or {})}
    process = _CONTEXT.Process(target=_run, args=(function, arguments, str(log), variables))
    process.start()
    return process


def ranks(function: Callable[..., Any], *arguments: Any, folder: Path) -> list[tuple[int | None, str]]:
    """Call a function in two processes of one world, as `torchrun` would start them; waits for both.

    Returns the exit status (None for one that had to be killed) and what it wrote of each, in the order of
    their ranks.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world |= {"GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    logs = [folder / f"{rank}.log" for rank in range(2)]
    processes: list[BaseProcess] = []
    try:
        for rank, log in enumerate(logs):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(start(function, *arguments, log=log, environment=world | place))
        for process in processes:
            process.join(PATIENCE_S)
        ended = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [(status, log.read_text(errors="replace")) for status, log in zip(ended, logs, strict=True)]


def command(*arguments: str) -> None:
    """`prefrm` with these arguments, for `start`."""
    from prefrm.cli import run

    sys.exit(run(list(arguments)))


def _run(function: Callable[..., Any], arguments: Any, log: str, variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    function(*arguments)
