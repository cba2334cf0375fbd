"""Parts one after the other, each in a process with a time limit; what is done already is not done again.

RUNS/PART.json            what came of it
RUNS/PART.measured.json   what it has measured so far, while it runs
RUNS/PART.log             its output
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefrm.bench.gpu.child import PACKAGE_MISSING
from prefrm.bench.gpu.parts import Part
from prefrm.bench.gpu.results import Result, Status, read_measured, read_result, write_result

__all__ = ["asked_of", "find_result", "run_part"]

ROOT = Path(__file__).parents[3]
QUOTED_LINES = 8
STOP_S = 5.0


def asked_of(part: Part, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a result must be of to stand for the part."""
    return {**identity, "module": part.module, "options": dict(part.options)}


def find_result(part: Part, runs: Path, identity: Mapping[str, Any]) -> Result:
    """The result of an earlier run, or one that says that there is none."""
    asked = asked_of(part, identity)
    found = read_result(runs / f"{part.name}.json", asked)
    return Result(part=part.name, asked=asked, status="not run") if found is None else found


def run_part(part: Part, runs: Path, identity: Mapping[str, Any], *, device: str, limit_s: float) -> Result:
    """Measure a part in a process of its own, or take the result that is there.

    Args:
        part: what is measured.
        runs: a folder for results and logs.
        identity: version and device, of which a result must be to stand for this one.
        device: as in `Judge.from_base`.
        limit_s: seconds after which the process and all that it started are stopped.
    """
    if (found := find_result(part, runs, identity)).status == "done":
        return found
    runs.mkdir(parents=True, exist_ok=True)
    log, kept = runs / f"{part.name}.log", runs / f"{part.name}.measured.json"
    kept.unlink(missing_ok=True)
    command = [sys.executable, "-m", "prefrm.bench.gpu.child", part.module, "--device", device]
    command += ["--options", json.dumps(dict(part.options)), "--into", str(kept)]
    started = time.monotonic()
    status = _run(command, log, limit_s)
    result = Result(
        part=part.name,
        asked=asked_of(part, identity),
        status=status,
        seconds=time.monotonic() - started,
        lines=()
        if status == "done"
        else _last_lines(log, 1 if status == "package missing" else QUOTED_LINES),
        measured=read_measured(kept),
    )
    write_result(runs / f"{part.name}.json", result)
    kept.unlink(missing_ok=True)
    return result


def _run(command: list[str], log: Path, limit_s: float) -> Status:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    # Of several cards one: a trainer of `transformers` would spread its batches over all.
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            # Workers and servers that it starts end with it.
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            _stop(process)
    if code == PACKAGE_MISSING:
        return "package missing"
    return "failed" if code else "done"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process, and whatever of its group is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)


def _last_lines(log: Path, count: int) -> tuple[str, ...]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line.rstrip() for line in lines if line.strip())[-count:]
