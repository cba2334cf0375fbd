"""`prefrm check-trainer` against a served judge."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from prefrm.cli import run
from prefrm.grpo.replays import check as checks
from prefrm.grpo.replays.check import check_replays, time_step
from prefrm.winmatrix import WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.grpo.pixels import PixelScorer

SMALL = ("--group-size", "2", "--groups", "1", "--side", "16")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with background(JudgeServer(PixelScorer(), ModelInfo(name="judge"))) as addresses:
        yield addresses.grpc_url


def check(*arguments: str) -> int:
    return run(["check-trainer", *arguments, *SMALL])


@pytest.mark.parametrize("trainer", ["flow_factory", "flow_grpo", "slime", "trl", "verl"])
def test_every_trainer_fits_a_judge_that_works(url, capsys, trainer):
    assert check(trainer, url, "--on-missing", "drop", "--within", "60") == 0
    out = capsys.readouterr().out
    assert "wrong" not in out and "all rewards are correct" in out
    assert "a step of 1 groups of 2 images of 16 x 16 pixels" in out and "where 0.0 are needed" in out


def test_the_settings_decide_what_stops_a_run(url, capsys):
    assert check("verl", url, "--on-single", "raise") == 0
    lines = capsys.readouterr().out.splitlines()
    stopped = {line.partition(" s  ")[2] for line in lines if line.startswith("stops")}
    assert {"validation before training", "images with NaN"} <= stopped
    assert any("trainer.val_before_train=False" in line for line in lines)


def test_a_step_that_takes_too_long(url, capsys):
    assert check("slime", url, "--within", "0.000001") == 1
    assert "\nslow" in capsys.readouterr().out


@pytest.mark.parametrize(("budget", "steps"), [(60.0, 4), (0.001, 1)])
def test_a_slow_judge_is_timed_over_fewer_steps(monkeypatch, budget, steps):
    class Slow(PixelScorer):
        def score(self, groups):
            time.sleep(0.01)
            return super().score(groups)

    monkeypatch.setattr(checks, "TIMING_S", budget)
    scorer = Slow()
    step = time_step(scorer, group_size=2, groups=1, side=16)
    assert len(scorer.groups) == steps
    assert 0.01 <= step.seconds < 5 and step.images == 2


def test_a_judge_that_cannot_be_reached_ends_it_at_once(capsys):
    assert check("flow_grpo", "grpc://127.0.0.1:9/judge") == 2
    assert "127.0.0.1:9/judge is not available" in capsys.readouterr().err


def test_a_judge_that_refuses_ends_it_with_one_line(url, capsys):
    """Not with a verdict on the trainer: "stops" would be as misleading as "wrong"."""
    assert check("trl", url.replace("/judge", "/jugde")) == 2
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1, captured.out
    assert "'jugde' is not found; this server has 'judge'" in captured.err


@pytest.mark.parametrize("trainer", ["flow_grpo", "trl"])
def test_an_interruption_does_not_wait_for_the_judge(trainer):
    asked, answer = threading.Event(), threading.Event()

    class Hanging:
        def score(self, groups):
            asked.set()
            answer.wait(10)
            return PixelScorer().score(groups)

    def interrupt():
        asked.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(check_replays(trainer, Hanging(), on_missing="raise", on_single="nan"))
        assert time.monotonic() - started < 5
    finally:
        answer.set()
        thread.join()


def test_a_judge_that_judges_nothing_does_not_fit(capsys):
    class Blind:
        def score(self, groups):
            return [WinMatrix.missing(["it sees nothing"] * group.size) for group in groups]

    with background(JudgeServer(Blind(), ModelInfo(name="judge"))) as addresses:
        assert check("slime", addresses.grpc_url) == 1
    out = capsys.readouterr().out
    assert "wrong" in out and "IncompleteMatrixError" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("openrlhf", "grpc://127.0.0.1:9/judge"),
            "there are replays of flow_factory, flow_grpo, slime, trl, verl",
        ),
        (("trl", "runs/bundle"), "needs the URL of a served judge, as a trainer does; received runs/bundle"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert check(*arguments) == 2
    assert message in capsys.readouterr().err
