"""Groups, win matrices and the protocol between them. Numpy only.

What happens to a matrix afterwards (advantages, pairs, rankings) lives in `prefrm.rewards`.
"""

from prefrm.winmatrix.calibration import (
    CalibrationMap,
    PowerScaling,
    TemperatureScaling,
    calibration_map,
)
from prefrm.winmatrix.group import Group
from prefrm.winmatrix.matrix import Bools, Floats, OnMissing, WinMatrix, check_on_missing
from prefrm.winmatrix.scorer import FakeScorer, Scorer, check_answer

__all__ = [
    "Bools",
    "CalibrationMap",
    "FakeScorer",
    "Floats",
    "Group",
    "OnMissing",
    "PowerScaling",
    "Scorer",
    "TemperatureScaling",
    "WinMatrix",
    "calibration_map",
    "check_answer",
    "check_on_missing",
]
