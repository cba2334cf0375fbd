"""Whether a trainer, a judge and settings fit each other: the trainer's replays, and one of its steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np

from prefrm.errors import PrefrmError, ScoringError
from prefrm.grpo.groups import OnSingle
from prefrm.grpo.replays import load, options_of, play, problems
from prefrm.grpo.replays.replay import Replay
from prefrm.pixels import encode_image
from prefrm.shutdown import in_daemon_thread
from prefrm.winmatrix import Group, OnMissing, Scorer, score_all

__all__ = ["Outcome", "StepTime", "check_replays", "time_step"]

ROUNDS = 3
# No further step is begun once they have taken this many seconds.
TIMING_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one replay.

    Attributes:
        verdict: "ok", "stops" (an error, as these settings ask for), or "wrong".
        seconds: that it took.
        remarks: the error, or what is wrong.
    """

    replay: Replay
    verdict: Literal["ok", "stops", "wrong"]
    seconds: float
    remarks: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """How long a judge takes for all groups of a trainer's step.

    Attributes:
        seconds: the mean over the rounds.
        images: of a step.
    """

    seconds: float
    images: int


def check_replays(
    trainer: str, scorer: Scorer, *, on_missing: OnMissing, on_single: OnSingle
) -> Iterator[Outcome]:
    """Play each replay of a trainer to a judge, on one process.

    Args:
        on_single: with "reference", the reference is an image made here.

    Raises:
        ConfigError: there are no replays of this trainer.
        ScoringError: the judge could not answer.
    """
    chosen: dict[str, Any] = {"on_missing": on_missing, "on_single": on_single}
    if on_single == "reference":
        chosen["reference"] = lambda prompt, about: encode_image(_noise(np.random.default_rng(0), 64))
    for replay in load(trainer):
        yield _checked(replay.merged(), scorer, chosen)


def _checked(replay: Replay, scorer: Scorer, chosen: dict[str, Any]) -> Outcome:
    needed = options_of(replay)
    options = needed if replay.error else chosen | {k: v for k, v in needed.items() if k != "on_missing"}
    started = time.perf_counter()
    try:
        # An interruption must not wait for the threads of a replay, which may wait for the judge.
        played = in_daemon_thread(lambda: play(replay, scorer, **options)).result()
        found = problems(replay, [played])
        if replay.error:
            found.append(f"it should have stopped with an error about {replay.error!r}")
        verdict: Literal["ok", "stops", "wrong"] = "wrong" if found else "ok"
    except ScoringError:
        # Of the judge, whichever replay asks it.
        raise
    except PrefrmError as error:
        found = [f"{type(error).__name__}: {error}"]
        verdict = "stops" if _asked_for(replay, options, str(error)) else "wrong"
    return Outcome(replay=replay, verdict=verdict, seconds=time.perf_counter() - started, remarks=found)


def _asked_for(replay: Replay, options: dict[str, Any], message: str) -> bool:
    """Whether an error is what the settings say should happen."""
    if replay.error:
        return replay.error in message
    missing = any(sample.missing for sample in replay.samples)
    evaluated = any(step.evaluation for step in replay.steps)
    return (missing and options["on_missing"] == "raise") or (evaluated and options["on_single"] == "raise")


def time_step(scorer: Scorer, *, group_size: int, groups: int, side: int) -> StepTime:
    """Time a step of `groups` groups of random images, `side` pixels wide and high.

    No two groups are alike, so that a judge cannot keep what it has seen. The first step is not counted,
    unless it took so long that it is the only one.
    """
    random = np.random.default_rng(0)
    seconds: list[float] = []
    while len(seconds) <= ROUNDS and sum(seconds) < TIMING_S:
        step = [
            Group(
                prompt=f"image {n}",
                candidates=tuple(encode_image(_noise(random, side)) for _ in range(group_size)),
            )
            for n in range(groups)
        ]
        started = time.perf_counter()
        score_all(scorer, step)
        seconds.append(time.perf_counter() - started)
    return StepTime(seconds=fmean(seconds[1:] or seconds), images=group_size * groups)


def _noise(random: np.random.Generator, side: int) -> Any:
    return random.integers(0, 256, (side, side, 3), dtype=np.uint8)
