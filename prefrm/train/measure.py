"""Measurements of an exported judge: equality with the trained one, calibration, and held-out metrics."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from prefrm.bundle import CalibrationRecord
from prefrm.errors import BundleError
from prefrm.eval import Evaluation, Fitted, Splits, evaluate_splits, fit_split, write_report
from prefrm.protocol import encode_matrices, largest_difference
from prefrm.records import read_groups
from prefrm.train.config import DataConfig
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["EXPORT_GROUPS", "check_export", "first_groups", "measure", "pictures"]

EXPORT_GROUPS = 8
# In log-odds. A CPU repeats every bit; the kernels of an accelerator may add in another order.
SAME = 1e-3
# The spacing of float32 probabilities between 1/2 and 1, to which both sides of a pair are rounded.
LAST_BIT = 2.0**-24


def first_groups(data: DataConfig) -> list[Group]:
    """A few validation (or else training) groups, on which the written and the loaded judge are compared."""
    groups = read_groups(data.path, data.validation or data.train)
    return [group.group() for group in islice(groups, EXPORT_GROUPS)]


def check_export(bundle: Path, written: Sequence[WinMatrix], loaded: Sequence[WinMatrix]) -> float:
    """The largest difference in log-odds between a judge in memory and its bundle, loaded again.

    Both have the same weights in the same dtype on the same device, so nothing is left for rounding to
    explain but the order in which an accelerator adds up.

    Raises:
        BundleError: it is more than `SAME`.
    """
    difference = max(_apart(one, other) for one, other in zip(written, loaded, strict=True))
    # Not `>`, which is false of NaN.
    if not difference <= SAME:
        raise BundleError(
            f"{bundle} is not the judge that was trained: on {len(written)} groups their log-odds differ by "
            f"{difference:.3g} (inf: in which pairs were judged), and equal weights explain {SAME:g}; do not "
            "use it, and report this"
        )
    return difference if any(matrix.judged.any() for matrix in written) else math.nan


def _apart(one: WinMatrix, other: WinMatrix) -> float:
    """The largest difference in log-odds that float32 probabilities show; inf if other pairs were judged."""
    numbers = largest_difference(encode_matrices([one]), encode_matrices([other]))
    both = one.valid & other.valid
    p, q = (np.clip(matrix.p[both].astype(np.float64), LAST_BIT, 1 - LAST_BIT) for matrix in (one, other))
    log_odds = np.abs(np.log(p / (1 - p)) - np.log(q / (1 - q)))
    return float(np.max(log_odds - LAST_BIT / (p * (1 - p)), initial=numbers))


def measure(
    scorer: Scorer, data: DataConfig, report: Path
) -> tuple[CalibrationRecord | None, Evaluation | None]:
    """Fit calibration and thresholds on the validation split, then report on the test split with them."""
    if data.test is None:
        fitted = None if data.validation is None else fit_split(scorer, data.path, data.validation)
        return _calibration(fitted), None
    why = "data.validation is null" if data.validation is None else ""
    splits = Splits(test=data.test, validation=data.validation, why=why)
    study = evaluate_splits(scorer, data.path, splits)
    if study.recalibrated is None:
        write_report(study.evaluation, report, why_no_thresholds=why)
        return None, study.evaluation
    write_report(study.recalibrated, report, before=study.evaluation)
    return _calibration(study.fitted), study.recalibrated


def _calibration(fitted: Fitted | None) -> CalibrationRecord | None:
    if fitted is None:
        return None
    thresholds = fitted.thresholds
    return CalibrationRecord.of(fitted.calibration, split=thresholds.split, pairs=thresholds.pairs)


def pictures(folder: Path) -> dict[str, bytes]:
    """The plots of a report, encoded, by file name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
