"""Calibration maps: from a judge's log-odds to log-odds whose probabilities agree with labels.

A map is odd and strictly increasing. Odd: the complement of a probability is mapped to the complement, so
p[i, j] + p[j, i] == 1 holds after it. Increasing: no verdict changes, only its confidence. `WinMatrix` alone
applies a map; fitting one belongs to `prefrm.eval`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.winmatrix.probabilities import Doubles

__all__ = [
    "CALIBRATION_MAPS",
    "CalibrationMap",
    "CalibrationRecord",
    "PowerScaling",
    "TemperatureScaling",
    "calibration_map",
]


class CalibrationMap(ABC):
    """An odd, strictly increasing function of log-odds with positive, finite parameters.

    Attributes:
        name: of the family, one of `CALIBRATION_MAPS`.
    """

    name: ClassVar[str]
    __slots__ = ()

    def __post_init__(self) -> None:
        for parameter, value in self.parameters.items():
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{parameter} must be positive and finite; received {value}")

    @property
    def parameters(self) -> Mapping[str, float]:
        """The numbers that make the map, by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @abstractmethod
    def apply(self, log_odds: npt.NDArray[np.floating]) -> Doubles:
        """The calibrated log-odds, elementwise; NaN stays NaN, and f(-x) is exactly -f(x)."""

    @abstractmethod
    def describe(self) -> str:
        """The parameters as people read them: "temperature 0.41, power 1.4"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureScaling(CalibrationMap):
    """`x / temperature` (Guo et al., arXiv 1706.04599)."""

    name: ClassVar[str] = "temperature"
    temperature: float

    def apply(self, log_odds: npt.NDArray[np.floating]) -> Doubles:
        return np.asarray(log_odds, dtype=np.float64) / self.temperature

    def describe(self) -> str:
        return f"temperature {self.temperature:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerScaling(CalibrationMap):
    """`sign(x) |x|^power / temperature`.

    Ties of a dataset pull a judge's small log-odds towards 0 and strict pairs push its large ones away from
    it; one temperature cannot do both. A power above 1 does: it shrinks what is small and stretches what is
    large.
    """

    name: ClassVar[str] = "power"
    temperature: float
    power: float

    def apply(self, log_odds: npt.NDArray[np.floating]) -> Doubles:
        x = np.asarray(log_odds, dtype=np.float64)
        return np.copysign(np.abs(x) ** self.power / self.temperature, x)

    def describe(self) -> str:
        return f"temperature {self.temperature:.3g}, power {self.power:.3g}"


CALIBRATION_MAPS: Mapping[str, type[CalibrationMap]] = {
    family.name: family for family in (TemperatureScaling, PowerScaling)
}
"""Every family of maps by its name."""


def calibration_map(name: str, parameters: Mapping[str, float]) -> CalibrationMap:
    """The map of the family `name` with those parameters.

    Raises:
        ConfigError: there is no such family, it has other parameters, or one of them is out of range.
    """
    if name not in CALIBRATION_MAPS:
        raise ConfigError(f"calibration must be one of {', '.join(CALIBRATION_MAPS)}; received {name!r}")
    try:
        return CALIBRATION_MAPS[name](**parameters)
    except TypeError as error:
        raise ConfigError(f"calibration {name!r} has other parameters than {dict(parameters)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """A calibration map as plain data, and what it was fitted on: data that the judge was not trained on.

    Attributes:
        name: the family of the map, one of `CALIBRATION_MAPS`.
        parameters: of the map, by name.
        split: the split on which it was fitted; "" if a person chose the parameters.
        pairs: how many judged comparisons that was; 0 if a person chose the parameters.

    Raises:
        ConfigError: the map is unknown or out of range, or a split has no pairs.
    """

    name: str
    parameters: Mapping[str, float]
    split: str = ""
    pairs: int = 0

    def __post_init__(self) -> None:
        calibration_map(self.name, self.parameters)
        if self.pairs < bool(self.split):
            raise ConfigError(f"a calibration needs at least one comparison; received pairs={self.pairs}")

    @classmethod
    def of(cls, calibration: CalibrationMap, *, split: str, pairs: int) -> "CalibrationRecord":
        """The record of a map that was fitted on `pairs` pairs of a split."""
        return cls(name=calibration.name, parameters=calibration.parameters, split=split, pairs=pairs)

    @property
    def map(self) -> CalibrationMap:
        """The map itself."""
        return calibration_map(self.name, self.parameters)

    def describe(self) -> str:
        """A clause for a terminal or a card."""
        origin = f", from {self.pairs} pairs of {self.split}" if self.split else ""
        return f"{self.map.describe()}{origin}"
