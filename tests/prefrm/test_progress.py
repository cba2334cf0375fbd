"""What long work shows: a bar on a terminal, plain lines elsewhere, and nothing on standard output."""

import io
import sys
import threading
import time

import pytest

from prefrm import progress
from prefrm.progress import track, waiting


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_elsewhere_a_line_every_ten_seconds_estimates_what_is_left(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with track("scoring", 100) as advance:
        for done, seconds in ((0, 30.0), (10, 5.0), (20, 5.0), (25, 1.0), (50, 9.0)):
            clock.now += seconds
            advance(done)
    captured = capsys.readouterr()
    assert captured.out == ""
    # 10 of 100 after 35 s, and 50 of 100 after 50 s.
    assert captured.err == "scoring: 10/100, about 315 s left\nscoring: 50/100, about 50 s left\n"


def test_numbers_stand_in_the_lines_and_the_last_one_is_always_printed(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    # Of a run that was resumed, what was done before took no time of this one.
    with track("training", 100, 40) as advance:
        for done, seconds in ((40, 10.0), (50, 10.0), (100, 1.0)):
            clock.now += seconds
            advance(done, f"loss {done / 100}")
        advance.say("step 100: validation")
    assert capsys.readouterr().err == (
        "training: 50/100, loss 0.5, about 100 s left\ntraining: 100/100, loss 1.0\nstep 100: validation\n"
    )


def test_of_an_unknown_total_no_time_is_estimated(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with track("reading", None) as advance:
        clock.now += 30
        advance(10)
    assert capsys.readouterr().err == "reading: 10\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with track("scoring", 4) as advance:
        advance(3, "loss 0.5")
        advance.say("step 3: [all] is well")
        advance(4, "loss 0.25")
    assert "scoring" in terminal.getvalue()
    assert "loss 0.25" in terminal.getvalue()
    assert "step 3: [all] is well\n" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_work_without_progress_shows_that_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.02)
    lines = []
    with waiting("scoring 2 texts"):
        end = time.monotonic() + 30
        while len(lines) < 2 and time.monotonic() < end:
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
    assert lines[:2] == ["scoring 2 texts: 0 s"] * 2
    assert "prefrm-waiting" not in [thread.name for thread in threading.enumerate()]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with waiting("scoring 2 texts"):
        pass
    assert "scoring 2 texts" in terminal.getvalue() and "0:00:00" in terminal.getvalue()


def test_an_error_passes_through():
    with pytest.raises(KeyError), track("scoring", 4):
        raise KeyError("the caller's own")
