"""A judge on a dataset folder: what may be fitted comes from one split, what is measured from another.

Scores and shows its progress; writes nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefrm.errors import ConfigError, DatasetError
from prefrm.eval.evaluation import Evaluation, evaluate
from prefrm.eval.pairs import pairs_of
from prefrm.eval.thresholds import Thresholds
from prefrm.progress import track
from prefrm.records import count_groups, read_groups
from prefrm.rewards import Criteria
from prefrm.winmatrix import CalibrationMap, Inputs, Scorer

__all__ = [
    "NO_VALIDATION",
    "Fitted",
    "Splits",
    "Study",
    "evaluate_split",
    "evaluate_splits",
    "find_splits",
    "fit_evaluation",
    "fit_split",
    "require_readable",
]

logger = logging.getLogger(__name__)

VALIDATION = "validation"
NO_VALIDATION = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """What is measured, and on what calibration and tie thresholds are fitted: None, and why.

    `why` is a clause such as "the dataset has no split 'validation'", "" where there is a validation split.
    """

    test: str
    validation: str | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was fitted to the labels of a split.

    Attributes:
        calibration: the map under which the judge's log-odds fit the labels.
        thresholds: for ties; they name the split and how many judged pairs it has.
    """

    calibration: CalibrationMap
    thresholds: Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One judge on one dataset.

    Attributes:
        splits: where the numbers come from.
        fitted: to the validation split; None without one.
        evaluation: the judge as it is, on the test split.
        recalibrated: the same under the fitted calibration; None if nothing was fitted.
    """

    splits: Splits
    fitted: Fitted | None
    evaluation: Evaluation
    recalibrated: Evaluation | None


def find_splits(data: Path | str, test: str, validation: str | None = None) -> Splits:
    """The splits of the folder `data` to use; nothing is scored, only looked for.

    Args:
        test: what is measured.
        validation: what is fitted on; None for "validation" if the dataset has it, "none" for nothing.

    Raises:
        DatasetError: a split that was asked for is absent or no dataset.
        ConfigError: both are the same.
    """
    count_groups(data, test)
    if validation == NO_VALIDATION:
        return Splits(test=test, validation=None, why="none was asked for")
    if validation == test:
        raise ConfigError(
            f"calibration and tie thresholds cannot be fitted on {test!r}, on which they are measured; "
            f"choose another validation split, or {NO_VALIDATION!r}"
        )
    if validation is None and test == VALIDATION:
        return Splits(test=test, validation=None, why=f"{test!r} itself is measured")
    if validation is None and not (Path(data) / f"{VALIDATION}.parquet").is_file():
        return Splits(test=test, validation=None, why=f"the dataset has no split {VALIDATION!r}")
    chosen = validation or VALIDATION
    count_groups(data, chosen)
    return Splits(test=test, validation=chosen)


def require_readable(
    judge: str,
    inputs: Mapping[str, Inputs],
    data: Path | str,
    split: str,
    *,
    criteria: Criteria | None = None,
) -> None:
    """Raise `ConfigError` if a judge can read no group of a split. Nothing is scored.

    Args:
        judge: its name, for the message.
        inputs: what each scorer of the judge reads, by its name; a group is read if all of them read it.
        data: the dataset's folder.
        split: of the dataset.
        criteria: by which groups are judged; None is each group's own.
    """
    first = ""
    for group in read_groups(data, split):
        for one in [group.group()] if criteria is None else criteria.groups([group.group()]):
            refusals = {name: reason for name, each in inputs.items() if (reason := each.refusal(one))}
            if not refusals:
                return
            first = first or next(
                reason if name == judge else f"{name}: {reason}" for name, reason in refusals.items()
            )
    if first:
        raise ConfigError(f"{judge} can read no group of the split {split!r} of {data}: {first}")


def fit_split(scorer: Scorer, data: Path | str, split: str, *, criteria: Criteria | None = None) -> Fitted:
    """Score a split that is not the one to be measured, and fit calibration and tie thresholds on it.

    Raises: as `evaluate`, and DatasetError if no pair was judged.
    """
    return fit_evaluation(evaluate_split(scorer, data, split, criteria=criteria), split)


def fit_evaluation(held_out: Evaluation, split: str) -> Fitted:
    """Fit calibration and tie thresholds to a split that was scored. Raises as `fit_split`."""
    pairs = pairs_of(held_out.judged).judged
    if not len(pairs):
        first = next(iter(held_out.unreadable), None)
        why = "" if first is None else f" (record {first.id!r}: {first.reason})"
        raise DatasetError(
            f"no pair of the split {split!r} was compared and judged{why}, so nothing can be fitted on it; "
            "choose another validation split, or none"
        )
    if pairs.weight @ ((pairs.p - 0.5) * (pairs.target - 0.5)) < 0:
        logger.warning("the judge contradicts the labels of %r, and a calibration changes no verdict", split)
    return Fitted(calibration=held_out.fitted_calibration(), thresholds=held_out.fitted_thresholds(split))


def evaluate_splits(
    scorer: Scorer, data: Path | str, splits: Splits, *, criteria: Criteria | None = None
) -> Study:
    """Score the splits; fit on the one, if there is one, and measure on the other. Raises as `fit_split`."""
    fitted = None
    if splits.validation is not None:
        fitted = fit_split(scorer, data, splits.validation, criteria=criteria)
    thresholds = None if fitted is None else fitted.thresholds
    evaluation = evaluate_split(scorer, data, splits.test, thresholds, criteria=criteria)
    return Study(
        splits=splits,
        fitted=fitted,
        evaluation=evaluation,
        recalibrated=None if fitted is None else evaluation.calibrated(fitted.calibration),
    )


def evaluate_split(
    scorer: Scorer,
    data: Path | str,
    split: str,
    thresholds: Thresholds | None = None,
    *,
    criteria: Criteria | None = None,
) -> Evaluation:
    """Score a split of the folder `data`, with progress, and measure. Arguments and errors as `evaluate`."""
    with track(f"scoring {split}", count_groups(data, split)) as advance:
        groups = read_groups(data, split)
        return evaluate(scorer, groups, criteria=criteria, progress=advance, thresholds=thresholds)
