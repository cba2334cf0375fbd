"""What the trainers really do with their rewards: sequences of their calls, played to the adapters here.

A replay is data (`TRAINER.yaml`), and a module of the same name makes the trainer's own kind of call of it.
"""

import importlib
from typing import Any

import numpy as np

from prefrm.grpo.replays.replay import SIDE, Call, Replay, Sample, Step, load
from prefrm.grpo.replays.verdict import Judged, Played, Recorder, problems
from prefrm.winmatrix import Scorer

__all__ = ["Call", "Judged", "Played", "Replay", "Sample", "Step", "load", "options_of", "play", "problems"]

# Not of one shade, as the samples are.
REFERENCE = np.indices((SIDE, SIDE, 3)).sum(axis=0).astype(np.uint8)


def options_of(replay: Replay) -> dict[str, Any]:
    """The arguments of the adapter without which these calls stop a run."""
    options: dict[str, Any] = {}
    if not replay.error and any(sample.missing for sample in replay.samples):
        options["on_missing"] = "drop"
    if replay.settings.get("on_single") == "reference":
        options |= {"on_single": "reference", "reference": lambda prompt, about: REFERENCE}
    return options


def play(replay: Replay, scorer: Scorer, *, rank: int = 0, **options: Any) -> Played:
    """What one process of a replay sees. Its other processes play it at the same time.

    Args:
        options: arguments of the trainer's adapter.

    Raises:
        PrefrmError: whatever the adapter raises.
    """
    recorder = Recorder(scorer)
    driver = importlib.import_module(f"{__name__}.{replay.trainer}")
    rewards = driver.drive(replay, recorder, rank, **options)
    return Played(rewards=rewards, judged=recorder.judged)
