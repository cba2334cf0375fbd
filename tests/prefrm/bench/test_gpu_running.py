"""The benchmark of a GPU: its parts as processes, of which each may fail, and what is kept of them."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from prefrm.bench.gpu import __main__ as command
from prefrm.bench.gpu.parts import PARTS, TINY_PARTS, Part, select
from prefrm.bench.gpu.results import Result
from prefrm.bench.gpu.running import find_result, run_part
from prefrm.errors import ConfigError

IDENTITY = {"device": "a card", "prefrm": "0.1.0"}


def part(mode: str, **changes) -> Part:
    fields = {
        "name": f"fake-{mode}",
        "module": "tests.prefrm.bench.gpu_parts",
        "limit_s": 20.0,
        "options": {"mode": mode},
    }
    return Part(**fields | changes)


def run(one: Part, runs: Path, identity: dict[str, str] = IDENTITY, limit_s: float = 20.0) -> Result:
    return run_part(one, runs, identity, device="cpu", limit_s=limit_s)


def test_a_part_that_is_done_is_not_measured_again(tmp_path):
    result = run(part("done"), tmp_path)
    assert result.status == "done" and result.measured == {"mode": "done", "done": True} and not result.lines
    log = tmp_path / "fake-done.log"
    log.unlink()
    assert run(part("done"), tmp_path) == result == find_result(part("done"), tmp_path, IDENTITY)
    assert not log.exists()
    # Of another version, device or settings it is.
    assert find_result(part("done"), tmp_path, {**IDENTITY, "device": "another"}).status == "not run"
    assert find_result(part("done", options={"mode": "fails"}), tmp_path, IDENTITY).status == "not run"
    again = run(part("done"), tmp_path, {**IDENTITY, "prefrm": "0.2.0"})
    assert again.status == "done" and log.exists()


@pytest.mark.parametrize(
    ("mode", "status", "last"),
    [
        ("fails", "failed", "RuntimeError: the card is on fire"),
        ("dies", "failed", None),
        ("missing", "package missing", "bitsandbytes is not installed."),
        ("absent", "package missing", "No module named 'nothing'"),
    ],
)
def test_a_failure_costs_its_part_alone_and_keeps_what_came_before(mode, status, last, tmp_path):
    result = run(part(mode), tmp_path)
    assert result.status == status
    assert result.measured == {"mode": mode, "device": "cpu"}
    assert last is None or result.lines[-1].startswith(last)
    # It is tried again.
    (tmp_path / f"fake-{mode}.log").unlink()
    assert run(part(mode), tmp_path).status == status and (tmp_path / f"fake-{mode}.log").exists()


def test_a_part_that_takes_too_long_is_stopped(tmp_path):
    started = time.monotonic()
    result = run(part("hangs"), tmp_path, limit_s=1.5)
    assert result.status == "timed out" and time.monotonic() - started < 15
    assert result.lines[-1:] in (("it waits",), ())


def test_parts_are_chosen_by_name_or_kind():
    names = [one.name for one in select(PARTS, ["engine", "tests"])]
    assert names == [one.name for one in PARTS if one.kind == "engine" or one.name == "tests"]
    assert [one.name for one in select(PARTS, ["engine-3b"])] == [
        "engine-3b-256",
        "engine-3b-1024",
        "engine-3b-256-compiled",
    ]
    assert select(PARTS, []) == list(PARTS)
    with pytest.raises(ConfigError, match="received 'engin'"):
        select(PARTS, ["engin"])


def test_every_part_of_a_card_has_a_tiny_one_with_its_options():
    for parts in (PARTS, TINY_PARTS):
        assert len({one.name for one in parts}) == len(parts)
    assert {one.kind for one in PARTS} == {one.kind for one in TINY_PARTS}
    for one in (*PARTS, *TINY_PARTS):
        alike = next(other for other in PARTS if other.kind == one.kind)
        assert one.module == alike.module and one.options.keys() == alike.options.keys()


@pytest.fixture
def fakes(monkeypatch) -> list[Part]:
    machine = part(
        "machine", name="machine", module="tests.prefrm.bench.gpu_machine", options={"accelerator": False}
    )
    parts = [part("done"), part("fails")]
    monkeypatch.setattr(command, "MACHINE", machine)
    monkeypatch.setattr(command, "TINY_PARTS", tuple(parts))
    return parts


def test_the_command_writes_a_page_whatever_fails(fakes, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert command.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "machine: done",
        "fake-done: done",
        "fake-fails: failed",
    ]
    found = json.loads((tmp_path / "out" / "gpu-tiny.json").read_text())
    assert [one["status"] for one in found["parts"]] == ["done", "failed"]
    page = (tmp_path / "out" / "gpu-tiny.md").read_text()
    assert "**Tiny models" in page and "    RuntimeError: the card is on fire" in page
    assert command.main([*arguments, "--only", "fake-done"]) == 0


def test_when_the_time_is_up_nothing_is_started(fakes, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--minutes", "0.01"]
    assert command.main(arguments) == 0
    assert "fake-done: not started, 0.01 minutes are over" in capsys.readouterr().out
    assert "**fake-done**: not run" in (tmp_path / "out" / "gpu-tiny.md").read_text()


def test_a_mistake_is_one_line(fakes, tmp_path, capsys, monkeypatch):
    arguments = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert command.main([*arguments, "--only", "nothing"]) == 2
    assert "received 'nothing'" in capsys.readouterr().err
    monkeypatch.setattr(command, "MACHINE", replace(fakes[1], name="machine"))
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("RuntimeError: the card is on fire\n")
    assert not (tmp_path / "out").exists()
