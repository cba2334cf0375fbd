"""Scorer files: a YAML that combines scorers into an ensemble, or gives one a calibration.

    combine: mean            # mean, vote, worst or uncertainty
    scorers:
      - scorer: judges/hpsv3
        weight: 2
      - scorer: grpc://gpu-7:8001/judge
    calibration:             # written by `prefrm calibrate`
      name: temperature
      parameters: {temperature: 0.41}
      split: validation
      pairs: 1234

A path in it counts from the working directory, as in every configuration of prefrm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from prefrm.config import Bounded, NonNegative, Positive, check_bounds, load_config, to_mapping
from prefrm.errors import ConfigError
from prefrm.files import write_whole
from prefrm.winmatrix import CalibrationMap, calibration_map

__all__ = ["Calibration", "Combine", "ScorerFile", "Source", "read_scorer_file", "write_scorer_file"]

Combine = Literal["mean", "vote", "worst", "uncertainty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Bounded):
    """A scorer of a file, as `prefrm.scorers.open_scorer` takes it, and its positive weight."""

    scorer: str
    weight: Positive = 1.0

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.scorer.strip():
            raise ConfigError("scorer is empty; name a bundle, a URL or another scorer file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibration map by name, and where it comes from.

    Attributes:
        name: of the family of maps, such as "temperature".
        parameters: of the map.
        split: of the dataset to which it was fitted; "" if a person wrote it.
        pairs: how many judged pairs that split has.
    """

    name: str
    parameters: Mapping[str, float]
    split: str = ""
    pairs: int = 0

    def __post_init__(self) -> None:
        _ = self.map

    @property
    def map(self) -> CalibrationMap:
        """The map itself."""
        return calibration_map(self.name, self.parameters)

    @classmethod
    def of(cls, calibration: CalibrationMap, *, split: str, pairs: int) -> "Calibration":
        """The calibration of a map that was fitted on `pairs` pairs of a split."""
        return cls(name=calibration.name, parameters=calibration.parameters, split=split, pairs=pairs)

    def describe(self) -> str:
        """A clause for a terminal."""
        origin = f", from {self.pairs} pairs of {self.split}" if self.split else ""
        return f"{self.map.describe()}{origin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerFile(Bounded):
    """The content of a scorer file.

    Attributes:
        scorers: at least one, each once.
        combine: how their matrices become one (`prefrm.scorers.Ensemble`).
        penalty: standard deviations that `combine: uncertainty` takes off.
        calibration: of the combined log-odds; None leaves them as they are.
    """

    scorers: tuple[Source, ...]
    combine: Combine = "mean"
    penalty: NonNegative = 1.0
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        names = [one.scorer for one in self.scorers]
        if not names:
            raise ConfigError("scorers is empty; name at least one")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"scorers has {twice[0]} twice; give it a weight instead")


def read_scorer_file(path: Path | str) -> ScorerFile:
    """Read a scorer file. Raises `ConfigError` that names each wrong field."""
    return load_config(ScorerFile, Path(path))


def write_scorer_file(file: ScorerFile, path: Path | str) -> None:
    """Write a scorer file, which `read_scorer_file` reads back."""
    tree = _given(file) | {"scorers": [_given(one) for one in file.scorers]}
    write_whole(Path(path), yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def _given(config: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain data."""
    plain = to_mapping(config)
    return {one.name: plain[one.name] for one in fields(config) if getattr(config, one.name) != one.default}
