"""`prefrm quickstart` on the command line: what it refuses, and how it is stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from prefrm.cli import run
from prefrm.quickstart.folder import MARKER, make_room
from tests.forked import command, start

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range_costs_no_earlier_run(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_room(tmp_path):
        pass
    (tmp_path / "report.json").write_text("{}")
    assert run(["quickstart", "--out", str(tmp_path), "--seed", seed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("prefrm: ") and captured.err.count("\n") == 1
    assert "--seed" in captured.err
    assert (tmp_path / "report.json").is_file()


@pytest.mark.parametrize("package", ["torch", "trl", "psutil", "fastapi"])
def test_a_missing_extra_is_one_line(package: str, tmp_path: Path) -> None:
    program = f"import sys; sys.modules['{package}'] = None; from prefrm.cli import main; main()"
    line = [sys.executable, "-c", program, "quickstart", "--out", str(tmp_path / "run")]
    done = subprocess.run(line, env=ONE_THREAD, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"prefrm: {package} is not installed. Install it with `pip install 'prefrm[all]'`.\n"
    )
    assert not (tmp_path / "run").exists()


def test_the_time_that_the_imports_take_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    class SlowToImport(ModuleType):
        @property
        def tell(self) -> Callable[..., None]:
            time.sleep(0.2)
            return lambda out, *, seed, started: waited.append(time.monotonic() - started)

    monkeypatch.setitem(sys.modules, "prefrm.quickstart", SlowToImport("prefrm.quickstart"))
    assert run(["quickstart", "--out", str(tmp_path)]) == 0
    assert waited[0] >= 0.2


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_the_next_run_takes_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    log = tmp_path / "log"
    running = start(command, "quickstart", "--out", str(out), log=log)
    try:
        end = time.monotonic() + 120
        while not list(out.glob("data/.building/*")):
            assert running.is_alive() and time.monotonic() < end
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGINT)
        running.join(60)
    finally:
        running.kill()
        running.join()
    assert running.exitcode == 130
    told, *progress, error = log.read_text().splitlines()
    assert all(line.startswith("rendering: ") for line in progress)
    assert told.startswith("1/7 Data")
    assert error == "prefrm: interrupted"
    with make_room(out):
        pass
    assert [path.name for path in out.iterdir()] == [MARKER]
