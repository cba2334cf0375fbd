"""The benchmark of judges: every case in a process of its own, as many side by side as there are cores.

    runs/data/       the worlds, built once
    runs/CASE/       one training: its checkpoints, bundle, evaluation and row.json
    runs/speed.json  prefrm against a plain trainer

What is there already is not done again, so an interrupted benchmark goes on where it was; what is of other
data, of other settings, of another version or of another device is. Who changes prefrm itself deletes runs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefrm.bench.cases import CASES, PARTS, STEPS, Case
from prefrm.bench.kept import build_once
from prefrm.bench.report import read_judges_report, write_judges_report
from prefrm.bench.speed import measure_speeds
from prefrm.bench.training import CPU, Row, device_name, read_row
from prefrm.errors import PrefrmError
from prefrm.progress import track
from prefrm.records import SPLITS, fingerprint, read_groups, read_info, write_groups, write_info

__all__ = ["BenchError", "bench_judges"]

DATA_SEED = 0
POLL_SECONDS = 0.5
QUOTED_LINES = 5
Running = dict[Case, "subprocess.Popen[bytes]"]


class BenchError(PrefrmError):
    """A case of a benchmark ended in an error."""


def bench_judges(
    runs: Path,
    docs: Path,
    *,
    parts: Sequence[str] = PARTS,
    steps: int = STEPS,
    device: str = "auto",
    workers: int | None = None,
) -> list[Row]:
    """Train and measure every case, then write `judges.md`, `judges.json` and their plots into `docs`.

    Args:
        runs: where the trainings are kept; an interrupted benchmark goes on from there.
        docs: where the report goes.
        parts: of the report that are measured; the others keep the numbers that are in `docs`.
        steps: optimizer steps of each case.
        device: as in `Judge.from_base`.
        workers: cases side by side; None is one on an accelerator, and otherwise one for each core.

    Raises:
        BenchError: a case failed; the end of its log is quoted.
    """
    workers = workers or (os.cpu_count() or 1 if device_name(device) == CPU else 1)
    cases = [case for case in CASES if case.part in parts]
    kept, speeds = read_judges_report(docs)
    _build_data(runs)
    _train_all(cases, runs, steps=steps, device=device, workers=workers)
    measured = [
        row for case in cases if (row := read_row(case, runs, steps=steps, device=device)) is not None
    ]
    if "shapes" in parts:
        speeds = measure_speeds(runs / "data" / CASES[0].data, runs / "speed.json", device=device)
    worlds: dict[str, Mapping[str, Any]] = {
        case.part: read_info(runs / "data" / case.data).options for case in CASES
    }
    rows = sorted(
        [*measured, *(row for row in kept if row.part not in parts)], key=lambda row: PARTS.index(row.part)
    )
    write_judges_report(rows, speeds, docs, steps=steps, worlds=worlds)
    return measured


def _build_data(runs: Path) -> None:
    """Build what is not there as it is wanted; what was measured on other data goes first."""
    for case in {case.data: case for case in CASES}.values():
        folder = runs / "data" / case.data
        if not _build(case, folder):
            continue
        for other in CASES:
            if other.data == case.data:
                shutil.rmtree(runs / other.name, ignore_errors=True)
        (runs / "speed.json").unlink(missing_ok=True)


def _build(case: Case, folder: Path) -> bool:
    """Build the data of a case, unless they are there; returns whether it built."""
    if case.told == case:
        return build_once(folder, case.world, seed=DATA_SEED, **case.options)
    told = folder.with_name(case.told.data)
    build_once(told, case.world, seed=DATA_SEED, **case.options)
    info = read_info(told)
    if folder.is_dir() and read_info(folder).options == info.options:
        return False
    groups = {split: [replace(group, criterion="") for group in read_groups(told, split)] for split in SPLITS}
    for split, some in groups.items():
        write_groups(some, folder, split)
    fingerprints = {split: fingerprint(some) for split, some in groups.items()}
    write_info(folder, replace(info, fingerprints=fingerprints))
    return True


def _train_all(cases: Sequence[Case], runs: Path, *, steps: int, device: str, workers: int) -> None:
    waiting = [case for case in cases if read_row(case, runs, steps=steps, device=device) is None]
    done = len(cases) - len(waiting)
    with track("training judges", len(cases)) as advance, _children() as running:
        while waiting or running:
            while waiting and len(running) < workers:
                case = waiting.pop(0)
                running[case] = _start(case, runs, steps, device)
            done += _collect(running, runs, steps, device)
            advance(done)


def _start(case: Case, runs: Path, steps: int, device: str) -> "subprocess.Popen[bytes]":
    arguments = [case.name, "--runs", str(runs), "--steps", str(steps), "--device", device]
    with _log(case, runs).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefrm.bench.training", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def _collect(running: Running, runs: Path, steps: int, device: str) -> int:
    """Wait a little, and take out the cases that ended; returns how many."""
    with suppress(subprocess.TimeoutExpired):
        next(iter(running.values())).wait(POLL_SECONDS)
    ended = [case for case, process in running.items() if process.poll() is not None]
    for case in ended:
        status = running.pop(case).returncode
        row = read_row(case, runs, steps=steps, device=device)
        if status or row is None:
            raise BenchError(f"{case.name} ended with status {status}: {_end_of(_log(case, runs))}")
        print(f"{case.name}: pair accuracy {row.pair_accuracy:.3f}, {row.seconds:.0f} s", flush=True)
    return len(ended)


@contextmanager
def _children() -> Iterator[Running]:
    """Processes that end with the block, however it ends."""
    running: Running = {}
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _log(case: Case, runs: Path) -> Path:
    return runs / f"{case.name}.log"


def _end_of(log: Path) -> str:
    lines: Sequence[str] = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(lines[-QUOTED_LINES:])
