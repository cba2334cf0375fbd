"""A part: the tests that are marked `gpu`, which run nowhere else."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["measure", "read_report"]

ROOT = Path(__file__).parents[3]
MARK = "mark.gpu"
NEEDED = ("pytest", "pytest_timeout", "hypothesis")
"""Packages without which no test starts."""


def measure(device: str, *, folder: str) -> Iterator[dict[str, Any]]:
    """Run the tests; those of a module that cannot be imported count as one error.

    Args:
        device: of no effect: the tests choose theirs.
        folder: of tests, relative to the repository.

    Raises:
        ModuleNotFoundError: one of `NEEDED` is not installed.
    """
    for package in NEEDED:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"{package} is not installed")
    files = [path for path in sorted((ROOT / folder).rglob("test_*.py")) if MARK in path.read_text("utf-8")]
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        _run(files, report)
        yield read_report(report.read_text(encoding="utf-8"))


def _run(files: Sequence[Path], report: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--color", "no"]
    command += ["--continue-on-collection-errors", "--junitxml", str(report), *map(str, files)]
    subprocess.run(command, cwd=ROOT, check=False)


def read_report(xml: str) -> dict[str, Any]:
    """Counts, and the first line of each failure, of a report as pytest's `--junitxml` writes it."""
    cases = list(ElementTree.fromstring(xml).iter("testcase"))
    failures = []
    for case in cases:
        for wrong in (*case.findall("failure"), *case.findall("error")):
            name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
            message = (wrong.get("message") or "").strip().partition("\n")[0]
            failures.append({"test": name, "message": message})
    failed = {failure["test"] for failure in failures}
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed),
        "skipped": skipped,
        "failures": failures,
    }
