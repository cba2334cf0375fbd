"""The page: what was measured, in words and tables, with what failed. Measures nothing, imports no torch."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefrm.bench.gpu.goals import goals
from prefrm.bench.gpu.results import Result
from prefrm.bench.gpu.tables import (
    differences_table,
    engine_section,
    memory_table,
    server_table,
    tests_section,
    training_section,
)
from prefrm.display import markdown_table
from prefrm.files import write_json, write_whole

__all__ = ["COMMAND", "NOT_RUN", "page", "write_page"]

COMMAND = "make bench-gpu"
LINE = 110
TITLE = "# On a GPU\n"
NOT_RUN = f"""\
{TITLE}
No GPU has run this benchmark yet. On a machine with one, this page is written in less than 25 minutes by

    {COMMAND}
"""
MACHINE = (
    "{device}{memory}{driver}; {versions}. Models have the published shapes of Qwen2.5-VL and random "
    "weights, on which no time depends. {peak} A matrix product attains {product:,.3g}."
)
PEAK = "The card's peak is {peak:,.0f} TFLOP a second in bfloat16, by its data sheet."
NO_PEAK = "Its peak is not known here, so shares are of what a matrix product attains, in TFLOP a second."
TINY = "**Tiny models, to see that the benchmark runs. No figure on this page is one of a published model.**"


def page(results: Sequence[Result], machine: Mapping[str, Any], *, tiny: bool) -> str:
    """The page in Markdown.

    Args:
        results: of every part, in order.
        machine: what the part `machine` measured.
        tiny: whether the models are tiny.
    """
    sections = [TITLE, *([TINY] if tiny else []), _machine(machine), *_goals(results, machine)]
    for title, kind, write in (
        ("## Scoring", "engine", engine_section),
        ("## Training", "train", training_section),
        ("## Serving", "server", server_table),
        ("## Differences", "differences", differences_table),
        ("## Tests marked `gpu`", "tests", tests_section),
    ):
        measured = [result for result in results if result.part.startswith(kind) and result.measured]
        if measured:
            sections += [title, *(write(result, machine) for result in measured)]
        if kind == "train" and measured and not tiny:
            sections += ["### Memory beside what the configurations say", memory_table(measured)]
    sections += _not_done(results)
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def write_page(
    results: Sequence[Result], machine: Mapping[str, Any], out: Path, *, tiny: bool
) -> tuple[Path, Path]:
    """Write `gpu.json` and `gpu.md`, of tiny models `gpu-tiny.json` and `gpu-tiny.md`; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    name = "gpu-tiny" if tiny else "gpu"
    numbers = {"machine": machine, "parts": [asdict(result) for result in results]}
    write_json(out / f"{name}.json", numbers)
    write_whole(out / f"{name}.md", page(results, machine, tiny=tiny))
    return out / f"{name}.json", out / f"{name}.md"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    if machine["commit"]:
        versions += f", commit {machine['commit']}"
    text = MACHINE.format(
        device=machine["device"],
        memory=f" with {machine['memory_gib']:.0f} GiB" if machine["memory_gib"] else "",
        driver=f", driver {machine['driver']}, CUDA {machine['cuda']}" if machine["driver"] else "",
        versions=versions,
        peak=NO_PEAK if machine["peak_tflops"] is None else PEAK.format(peak=machine["peak_tflops"]),
        product=machine["product_tflops"],
    )
    return textwrap.fill(text, LINE)


def _goals(results: Sequence[Result], machine: Mapping[str, Any]) -> list[str]:
    found = goals(results, machine)
    if not found:
        return []
    body = [[goal.text, goal.part, goal.figure, "yes" if goal.reached else "no"] for goal in found]
    return ["## Goals", markdown_table(["goal", "part", "figure", "reached"], body)]


def _not_done(results: Sequence[Result]) -> list[str]:
    left = [result for result in results if result.status != "done"]
    if not left:
        return []
    return ["## Not measured, or not to the end", *(_reason(result) for result in left)]


def _reason(result: Result) -> str:
    lines = [
        f"**{result.part}**: {result.status}" + (f" after {result.seconds:.0f} s" * bool(result.seconds))
    ]
    lines += [f"    {line}" for line in result.lines]
    return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()
