"""What is measured once a judge is exported: that it is the one that was trained, and how good it is."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from prefrm.bundle import CalibrationRecord
from prefrm.errors import BundleError
from prefrm.eval import Evaluation, Fitted, Splits, evaluate_splits, fit_split, write_report
from prefrm.protocol import encode_matrices, largest_difference
from prefrm.records import read_groups
from prefrm.train.config import DataConfig
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["EXPORT_GROUPS", "check_export", "first_groups", "measure", "pictures"]

EXPORT_GROUPS = 8


def first_groups(data: DataConfig) -> list[Group]:
    """What the trained and the exported judge are both asked: a few validation (or else training) groups."""
    groups = read_groups(data.path, data.validation or data.train)
    return [group.group() for group in islice(groups, EXPORT_GROUPS)]


def check_export(
    bundle: Path, dtype: torch.dtype, trained: Sequence[WinMatrix], exported: Sequence[WinMatrix]
) -> float:
    """How far the matrices are apart. Raises `BundleError` if that is more than `dtype` explains."""
    difference = max(
        largest_difference(encode_matrices([one]), encode_matrices([other]))
        for one, other in zip(trained, exported, strict=True)
    )
    tolerance = _explained(dtype)
    if not difference <= tolerance:
        raise BundleError(
            f"{bundle} is not the judge that was trained: on {len(trained)} groups their win matrices differ "
            f"by {difference:.3g}, and rounding to {str(dtype).removeprefix('torch.')} explains "
            f"{tolerance:.3g}; do not use it: export=adapter merges nothing, dtype=float32 rounds less"
        )
    return difference if any(matrix.judged.any() for matrix in trained) else math.nan


def _explained(dtype: torch.dtype) -> float:
    """The largest difference of a probability that is put down to rounding.

    Merging and loading round every weight once, by a relative error of `eps` at most. Through the layers that
    may cost half of the digits, hence the square root, and the factor leaves room for the largest of
    hundreds of pairs: 7e-4 in float32, 0.06 in float16, 0.18 in bfloat16.
    """
    return 2 * math.sqrt(torch.finfo(dtype).eps)


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
