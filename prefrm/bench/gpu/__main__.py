"""The command: `python -m prefrm.bench.gpu --out docs`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefrm.bench.gpu.page import write_page
from prefrm.bench.gpu.parts import MACHINE, PARTS, TINY_PARTS, select
from prefrm.bench.gpu.results import Result
from prefrm.bench.gpu.running import find_result, run_part
from prefrm.errors import ConfigError

__all__ = ["main"]

LEAST_S = 20.0
"""Less than this is left for a part: it is not started."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a GPU, part by part, and write a page. No part is measured twice."""
    asked = _parser().parse_args(arguments)
    try:
        return _run(asked)
    except ConfigError as error:
        print(f"bench-gpu: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prefrm.bench.gpu", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where gpu.md and gpu.json go")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/bench-gpu"), help="where the parts' results and logs are kept"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="parts, or kinds of parts such as engine"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models, as without a GPU")
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="after which nothing is started or goes on"
    )
    parser.add_argument(
        "--device", default="auto", help="auto (the first GPU, or the CPU without one) or cpu"
    )
    return parser


def _run(asked: argparse.Namespace) -> int:
    end = time.monotonic() + 60 * asked.minutes
    machine = _describe(asked.runs, asked.device)
    tiny = asked.tiny or not machine["accelerator"]
    parts = TINY_PARTS if tiny else PARTS
    chosen = select(parts, asked.only)
    runs = asked.runs / ("tiny" if tiny else "full")
    versions = machine["versions"]
    identity = {"device": machine["device"], **{name: versions.get(name) for name in ("prefrm", "torch")}}
    for part in chosen:
        left = end - time.monotonic()
        if left < LEAST_S:
            print(f"{part.name}: not started, {asked.minutes:g} minutes are over", flush=True)
            continue
        result = run_part(part, runs, identity, device=asked.device, limit_s=min(part.limit_s, left))
        print(_line(result), flush=True)
        _write(asked, runs, identity, machine, tiny)
    results = _write(asked, runs, identity, machine, tiny)
    wanted = {part.name for part in chosen}
    wrong = [r for r in results if r.part in wanted and r.status in ("failed", "timed out")]
    return 1 if wrong else 0


def _describe(runs: Path, device: str) -> dict[str, Any]:
    """What the machine is, measured in every run."""
    (runs / f"{MACHINE.name}.json").unlink(missing_ok=True)
    result = run_part(MACHINE, runs, {}, device=device, limit_s=MACHINE.limit_s)
    if result.status != "done":
        raise ConfigError(f"the machine could not be measured ({result.status}): {' | '.join(result.lines)}")
    print(_line(result), flush=True)
    return dict(result.measured)


def _write(
    asked: argparse.Namespace, runs: Path, identity: dict[str, Any], machine: dict[str, Any], tiny: bool
) -> list[Result]:
    results = [find_result(part, runs, identity) for part in (TINY_PARTS if tiny else PARTS)]
    write_page(results, machine, asked.out, tiny=tiny)
    return results


def _line(result: Result) -> str:
    last = f": {result.lines[-1]}" if result.lines else ""
    return f"{result.part}: {result.status}, {result.seconds:.0f} s{last}"


if __name__ == "__main__":
    sys.exit(main())
