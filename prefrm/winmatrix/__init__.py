"""Groups, win matrices and the protocol between them. Numpy only.

What happens to a matrix afterwards (advantages, pairs, rankings) lives in `prefrm.rewards`.
"""

from prefrm.winmatrix.calibration import (
    CalibrationMap,
    CalibrationRecord,
    PowerScaling,
    TemperatureScaling,
    calibration_map,
)
from prefrm.winmatrix.group import Candidate, Group, Kind, kind_of
from prefrm.winmatrix.inputs import EVERYTHING, Inputs, InputsScorer, check_groups, inputs_of
from prefrm.winmatrix.matrix import Bools, Floats, OnMissing, WinMatrix, check_on_missing
from prefrm.winmatrix.metrics import matrix_metrics
from prefrm.winmatrix.probabilities import Doubles
from prefrm.winmatrix.reasons import unjudged_reasons
from prefrm.winmatrix.scorer import (
    ConcurrentScorer,
    CostedScorer,
    FakeScorer,
    IdentifiedScorer,
    Outcome,
    Scorer,
    as_matrix,
    check_answer,
    score_all,
    score_each,
    score_readable,
    with_refusals,
)
from prefrm.winmatrix.training_inputs import TrainingCheck, TrainingInputs

__all__ = [
    "EVERYTHING",
    "Bools",
    "CalibrationMap",
    "CalibrationRecord",
    "Candidate",
    "ConcurrentScorer",
    "CostedScorer",
    "Doubles",
    "FakeScorer",
    "Floats",
    "Group",
    "IdentifiedScorer",
    "Inputs",
    "InputsScorer",
    "Kind",
    "OnMissing",
    "Outcome",
    "PowerScaling",
    "Scorer",
    "TemperatureScaling",
    "TrainingCheck",
    "TrainingInputs",
    "WinMatrix",
    "as_matrix",
    "calibration_map",
    "check_answer",
    "check_groups",
    "check_on_missing",
    "inputs_of",
    "kind_of",
    "matrix_metrics",
    "score_all",
    "score_each",
    "score_readable",
    "unjudged_reasons",
    "with_refusals",
]
