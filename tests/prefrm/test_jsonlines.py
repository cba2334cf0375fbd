"""Files of JSON lines: what a resumed run keeps."""

import json
from pathlib import Path

import pytest

from prefrm.jsonlines import JsonLines


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_repeats_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path, key="step", done=0)
    for step in range(4):
        first.add({"step": step, "loss": step / 2}, sync=step == 3)
    # A kill cut the last line short.
    path.write_text(path.read_text() + '{"step": 4, "lo')
    resumed = JsonLines(path, key="step", done=2)
    assert resumed.lines == read(path) == [{"step": n, "loss": n / 2} for n in range(3)]
    resumed.add({"step": 3, "loss": 9.0})
    assert read(path) == resumed.lines
    assert read(path)[-1] == {"step": 3, "loss": 9.0}


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    assert JsonLines(path, key="step", done=0).lines == []
    assert path.read_text() == ""


def test_without_a_path_lines_are_kept_in_memory() -> None:
    lines = JsonLines(None, key="step", done=3)
    lines.add({"step": 4})
    assert lines.lines == [{"step": 4}]


def test_numbers_are_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        JsonLines(tmp_path / "metrics.jsonl", key="step", done=0).add({"step": 1, "loss": float("nan")})
