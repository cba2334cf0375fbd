"""What a trainer does with its rewards, as data: the calls of a few steps, on each of its processes.

A file holds the replays of one trainer, and names the version and the lines that they were read from. In a
call, each process has one text of samples, apart by blanks:

    a        the prompt "a"
    a@x      the prompt "a", to be drawn from the source image "x"
    a!       its image has a NaN pixel
    a?       the trainer has no image of it
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from prefrm.errors import ConfigError

__all__ = ["Call", "Replay", "Sample", "Step", "load"]

SHADES = 256
SIDE = 8
SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a trainer.

    Attributes:
        number: tells it from all others of the replay, and is the shade of its image.
        nan: whether its image has a NaN pixel.
        absent: whether there is no image.
    """

    number: int
    prompt: str
    source: str | None = None
    nan: bool = False
    absent: bool = False

    @classmethod
    def parse(cls, text: str, number: int) -> "Sample":
        """The sample of a word in a replay's file."""
        prompt, _, source = text.rstrip("!?").partition("@")
        return cls(
            number=number,
            prompt=prompt,
            source=source or None,
            nan=text.endswith("!"),
            absent=text.endswith("?"),
        )

    @property
    def missing(self) -> bool:
        """Whether there is nothing to judge."""
        return self.nan or self.absent

    @property
    def metadata(self) -> dict[str, str]:
        """What the trainer's dataset has beside the prompt."""
        return {} if self.source is None else {"image": self.source}

    @property
    def image(self) -> npt.NDArray[np.float32] | None:
        """CHW, of one shade in [0, 1]."""
        if self.absent:
            return None
        image = np.full((3, SIDE, SIDE), self.number / (SHADES - 1), np.float32)
        if self.nan:
            image[0, 0, 0] = np.nan
        return image


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One batch.

    Attributes:
        samples: by process.
        delay_s: seconds that this process takes from the batch's submission to the reward, by process.
    """

    samples: tuple[tuple[Sample, ...], ...]
    delay_s: tuple[float, ...]

    def merged(self) -> "Call":
        """The same batch on one process."""
        samples = tuple(sample for part in self.samples for sample in part)
        return Call(samples=(samples,), delay_s=(max(self.delay_s),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the trainer waits for before it goes on: an evaluation, or the batches of an update."""

    calls: tuple[Call, ...]
    evaluation: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The calls of one run.

    Attributes:
        read_from: the trainer's version, files and lines.
        about: what the trainer does that matters here.
        group_size: the samples of a prompt in training.
        threads: of the pool in which the trainer calls its rewards.
        settings: others of the trainer, by their names there.
        error: a part of the reward's error, where these settings cannot work.
    """

    trainer: str
    read_from: str
    name: str
    about: str
    group_size: int
    steps: tuple[Step, ...]
    threads: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def processes(self) -> int:
        """How many processes of the trainer there are."""
        return len(self.steps[0].calls[0].samples)

    @property
    def samples(self) -> list[Sample]:
        """All samples of all processes."""
        return [
            sample for step in self.steps for call in step.calls for part in call.samples for sample in part
        ]

    def merged(self) -> "Replay":
        """The same run on one process."""
        steps = (replace(step, calls=tuple(call.merged() for call in step.calls)) for step in self.steps)
        return replace(self, steps=tuple(steps))


def load(trainer: str) -> list[Replay]:
    """The replays of a trainer.

    Raises:
        ConfigError: there are none of this name.
    """
    folder = resources.files(__package__)
    names = sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))
    if trainer not in names:
        raise ConfigError(f"there are replays of {', '.join(names)}; received {trainer!r}")
    data = yaml.safe_load((folder / f"{trainer}{SUFFIX}").read_text(encoding="utf-8"))
    return [_replay(trainer, data["read_from"], entry) for entry in data["replays"]]


def _replay(trainer: str, read_from: str, entry: dict[str, Any]) -> Replay:
    numbers = itertools.count()

    def samples(text: str) -> tuple[Sample, ...]:
        return tuple(Sample.parse(word, next(numbers)) for word in text.split())

    steps = tuple(
        Step(
            evaluation=step.get("evaluation", False),
            calls=tuple(
                Call(
                    samples=tuple(samples(text) for text in call["samples"]),
                    delay_s=tuple(call.get("delay_s", [0.0] * len(call["samples"]))),
                )
                for call in step["calls"]
            ),
        )
        for step in entry["steps"]
    )
    replay = Replay(trainer=trainer, read_from=read_from, **{**entry, "steps": steps})
    assert len(replay.samples) <= SHADES
    return replay
