"""What the root conftest does for every test, on a suite of its own, on a clock of its own."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
CLOCK = """

passed = 0.0


def _now():
    return passed


def take(seconds):
    global passed
    passed += seconds
"""
SUITE = """
import os, signal, subprocess, sys, time
import pytest
from conftest import take

CHILD = (
    "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
    "signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)"
)

@pytest.fixture(scope="module")
def shared():
    take(9)

@pytest.fixture
def own():
    take(3)

def test_of_four_seconds():
    take(4)

def test_of_six_seconds():
    take(6)

@pytest.mark.slow
def test_of_six_seconds_and_marked():
    take(6)

def test_of_a_shared_fixture(shared):
    take(4)

def test_of_a_fixture_of_its_own(own):
    take(3)

def test_signals_and_threads():
    assert subprocess.check_output([sys.executable, "-c", CHILD], text=True) == "True True\\n"
    assert os.environ["OMP_NUM_THREADS"] == "1"

def test_interrupts_itself(default_signals):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

def test_prints_a_lone_surrogate():
    print("\\ud83d")
"""
FAILING = {"test_of_six_seconds", "test_of_a_fixture_of_its_own"}


@pytest.mark.slow
def test_only_a_slow_test_without_its_mark_fails_where_signals_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text() + CLOCK)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    line = f"trap '' INT HUP; exec '{sys.executable}' -m pytest -n 1 -rA -p no:cacheprovider"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["OMP_NUM_THREADS"] = "9"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    ended = {}
    for words in (one.split() for one in done.stdout.splitlines() if "test_suite.py::" in one):
        if words[0] in ("PASSED", "FAILED"):
            ended[words[1].partition("::")[2]] = words[0]
    tests = [one[4:].partition("(")[0] for one in SUITE.splitlines() if one.startswith("def test")]
    assert ended == {name: "FAILED" if name in FAILING else "PASSED" for name in tests}, done.stdout


def test_seconds_in_which_processes_wait_for_a_core_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("root_conftest", CONFTEST)
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    stalls = tmp_path / "cpu"
    monkeypatch.setattr(conftest, "_STALLS", stalls)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    # Without that file, as on other systems, all seconds count.
    assert conftest._now() == 100.0
    monkeypatch.setattr(conftest, "_STALLS", tmp_path)  # cannot be read
    assert conftest._now() == 100.0
    monkeypatch.setattr(conftest, "_STALLS", stalls)
    stalls.write_text("some avg10=6.24 avg60=14.20 avg300=11.56 total=2500000\nfull avg10=0.00 total=0\n")
    assert conftest._now() == 97.5
