"""How good a scorer is: agreement with a preference dataset, calibration, and a report with plots.

Sees any `prefrm.winmatrix.Scorer`; knows no engine and imports no torch. Nothing here draws a
conclusion from a pair that was not judged: such pairs are left out and counted.
"""

from prefrm.eval.calibration import (
    Calibration,
    Reliability,
    apply_temperature,
    calibrate,
    fit_temperature,
    tempered,
)
from prefrm.eval.evaluation import Evaluation, Unreadable, evaluate
from prefrm.eval.metrics import Accuracy, Metrics, accuracy, kendall_tau, measure
from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.report import write_report

__all__ = [
    "Accuracy",
    "Calibration",
    "Evaluation",
    "JudgedGroup",
    "Metrics",
    "Pairs",
    "Reliability",
    "Unreadable",
    "accuracy",
    "apply_temperature",
    "calibrate",
    "evaluate",
    "fit_temperature",
    "kendall_tau",
    "measure",
    "pairs_of",
    "tempered",
    "write_report",
]
