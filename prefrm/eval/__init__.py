"""How good a scorer is: agreement with a preference dataset, calibration, and a report with plots.

Sees any `prefrm.winmatrix.Scorer`; knows no engine and imports no torch. Nothing here draws a
conclusion from a pair that was not judged: such pairs are left out and counted; win rates alone, and what
is ranked by them, take in pairs that a scorer inferred. Nothing that is fitted, a calibration or a tie
threshold, is fitted on what it is measured on.
"""

from prefrm.eval.accuracies import (
    Accuracy,
    Breakdown,
    half_tie_accuracy,
    pair_accuracy,
    prompt_accuracy,
    three_label_accuracy,
    tie_calibrated_accuracy,
)
from prefrm.eval.calibration import CalibrationMetrics, Reliability, measure_calibration
from prefrm.eval.card import calibration_line, results_section, with_calibration, with_results
from prefrm.eval.definitions import Definition, both_orders, by_ranking, groups_apart
from prefrm.eval.evaluation import Evaluation, Unreadable, evaluate
from prefrm.eval.figures import AGAINST
from prefrm.eval.illusory import IllusoryAdvantage, illusory_advantages
from prefrm.eval.lengths import LengthBias, length_bias
from prefrm.eval.metrics import Metrics, measure
from prefrm.eval.paired import Difference, SideBySide, compare
from prefrm.eval.pairs import JudgedGroup, Pairs, pairs_of
from prefrm.eval.published import (
    PUBLISHED,
    choose_definitions,
    published_accuracies,
    why_unpublished,
)
from prefrm.eval.ranking import intransitive_triples, kendall_tau, spearman_rho
from prefrm.eval.recalibration import apply_calibration, fit_calibration
from prefrm.eval.report import Opponent, summary, write_report
from prefrm.eval.study import (
    Fitted,
    Splits,
    Study,
    evaluate_split,
    evaluate_splits,
    find_splits,
    fit_evaluation,
    fit_split,
    require_readable,
)
from prefrm.eval.tables import accuracy_text
from prefrm.eval.thresholds import Thresholds, fit_half_tie_threshold, fit_tie_threshold

__all__ = [
    "AGAINST",
    "PUBLISHED",
    "Accuracy",
    "Breakdown",
    "CalibrationMetrics",
    "Definition",
    "Difference",
    "Evaluation",
    "Fitted",
    "IllusoryAdvantage",
    "JudgedGroup",
    "LengthBias",
    "Metrics",
    "Opponent",
    "Pairs",
    "Reliability",
    "SideBySide",
    "Splits",
    "Study",
    "Thresholds",
    "Unreadable",
    "accuracy_text",
    "apply_calibration",
    "both_orders",
    "by_ranking",
    "calibration_line",
    "choose_definitions",
    "compare",
    "evaluate",
    "evaluate_split",
    "evaluate_splits",
    "find_splits",
    "fit_calibration",
    "fit_evaluation",
    "fit_half_tie_threshold",
    "fit_split",
    "fit_tie_threshold",
    "groups_apart",
    "half_tie_accuracy",
    "illusory_advantages",
    "intransitive_triples",
    "kendall_tau",
    "length_bias",
    "measure",
    "measure_calibration",
    "pair_accuracy",
    "pairs_of",
    "prompt_accuracy",
    "published_accuracies",
    "require_readable",
    "results_section",
    "spearman_rho",
    "summary",
    "three_label_accuracy",
    "tie_calibrated_accuracy",
    "why_unpublished",
    "with_calibration",
    "with_results",
    "write_report",
]
