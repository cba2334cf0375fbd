"""Rows of the study of reward hacking, and what they say: how far judge and oracle part, and where.

Shapes: N trainings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from prefrm.errors import missing_extra

__all__ = ["MEASURES", "Interval", "Point", "Row", "Turn", "mean_curve", "mean_interval", "paired", "turn"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An evaluation on held-out prompts.

    Attributes:
        iteration: after which it was; 0 is before the training.
        judge: P(a sample is preferred to one of the policy before), by the training reward's scorer.
        second: the same by the judge that no policy is trained with.
        oracle: mean share of the prompt's claims that hold.
        diversity: mean distance in pixels of two samples of a prompt.
    """

    iteration: int
    judge: float
    second: float
    oracle: float
    diversity: float

    @property
    def gap(self) -> float:
        """By how much the training reward rose more than the second judge's."""
        return self.judge - self.second


MEASURES = tuple(field.name for field in fields(Point) if field.name != "iteration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training; its points are in the order of their iterations.

    `seconds` are of the CPU, of all processes that worked on it but those that were killed.
    """

    reward: str
    method: str
    seed: int
    points: tuple[Point, ...]
    seconds: float

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Row":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**found, "points": tuple(Point(**point) for point in found["points"])})

    def change(self, measure: str) -> float:
        """From the first point to the last one, of one of `MEASURES` or of "gap"."""
        return float(getattr(self.points[-1], measure) - getattr(self.points[0], measure))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its 95% interval, of Student's t over trainings; NaN ends where there is one training."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is beyond chance."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Where the oracle's mean curve is highest, and what happens from there to the end.

    Attributes:
        iteration: of the highest point; the last one if the oracle never turns.
        oracle, judge: the change of the mean curves from there to the end.
    """

    iteration: int
    oracle: float
    judge: float

    @property
    def hacked(self) -> bool:
        """Whether the oracle falls while the reward still climbs."""
        return self.oracle < 0 < self.judge


def mean_interval(values: Sequence[float]) -> Interval:
    """Of the mean of [N] independent values."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise missing_extra("scipy", "data") from error
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def paired(rows: Sequence[Row], reward: str, other: str, measure: str) -> list[float]:
    """Differences of the changes under two rewards, of trainings with the same method and seed."""
    changes = {(row.reward, row.method, row.seed): row.change(measure) for row in rows}
    return [
        change - changes[other, method, seed]
        for (name, method, seed), change in changes.items()
        if name == reward and (other, method, seed) in changes
    ]


def mean_curve(rows: Sequence[Row], measure: str) -> list[tuple[int, float]]:
    """(iteration, mean over trainings), of trainings that were evaluated at the same iterations."""
    return [
        (points[0].iteration, float(np.mean([getattr(point, measure) for point in points])))
        for points in zip(*(row.points for row in rows), strict=True)
    ]


def turn(rows: Sequence[Row]) -> Turn:
    """Of the mean curves of trainings that differ in nothing but their seed."""
    oracle, judge = mean_curve(rows, "oracle"), mean_curve(rows, "judge")
    place = int(np.argmax([value for _, value in oracle]))
    return Turn(
        iteration=oracle[place][0],
        oracle=oracle[-1][1] - oracle[place][1],
        judge=judge[-1][1] - judge[place][1],
    )
