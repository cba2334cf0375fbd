"""Evaluate any scorer on preference groups.

Scores each group once. An `Evaluation` keeps the matrices, so that measuring again under another
calibration costs nothing. Writes nothing; that is `prefrm.eval.report`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from prefrm.errors import DatasetError
from prefrm.eval.accuracies import Accuracy, pair_accuracy
from prefrm.eval.calibration import CalibrationMetrics, measure_calibration
from prefrm.eval.metrics import Metrics, measure
from prefrm.eval.pairs import JudgedGroup, pairs_of
from prefrm.eval.recalibration import fit_calibration
from prefrm.eval.thresholds import Thresholds
from prefrm.pipeline import batched, score_batches
from prefrm.progress import Advance
from prefrm.records import PreferenceGroup
from prefrm.rewards import Criteria
from prefrm.winmatrix import CalibrationMap, Group, Scorer, WinMatrix

__all__ = ["Evaluation", "Unreadable", "evaluate", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A candidate that is in the dataset, or a pair of such, that could not be judged.

    Attributes:
        id: of the record.
        candidates: the index of the candidate, or both of the pair.
        reason: why.
    """

    id: str
    candidates: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a scorer said of a dataset, measured.

    Attributes:
        judged: every group's labels and matrix, in the dataset's order.
        unreadable: the candidates and pairs that were left out, and why; the rest of their group was judged.
        metrics: agreement with the labels.
        calibration: how far the probabilities agree with the labels.
        thresholds: the tie thresholds of another split; None leaves out the accuracies that need them.
        applied: the map under which the scorer's log-odds were measured; None is the scorer as it is.
        as_scored: the evaluation of the scorer as it is, where a map was applied.
        criteria: by which the scorer was asked, and how `judged` was combined; None is each group's own.
        by_criterion: the pair accuracy by each of `criteria`, which no calibration changes.
    """

    judged: tuple[JudgedGroup, ...]
    unreadable: tuple[Unreadable, ...]
    metrics: Metrics
    calibration: CalibrationMetrics
    thresholds: Thresholds | None = None
    applied: CalibrationMap | None = None
    as_scored: "Evaluation | None" = None
    criteria: Criteria | None = None
    by_criterion: Mapping[str, Accuracy] = field(default_factory=dict)

    def fitted_calibration(self) -> CalibrationMap:
        """The map that fits these labels best; for validation data, not for the test split."""
        pairs = pairs_of(self.judged)
        return fit_calibration(pairs.p, pairs.target, pairs.weight)

    def fitted_thresholds(self, split: str) -> Thresholds:
        """The tie thresholds that these very labels ask for; for `evaluate` on another split than `split`."""
        return Thresholds.fit(pairs_of(self.judged), split)

    def calibrated(self, calibration: CalibrationMap) -> "Evaluation":
        """The evaluation of the scorer as it is under `calibration`; nothing is scored again.

        No verdict on who wins changes, nor do ties by threshold. The verdict of a judge that models ties may
        change to or from a tie, which log-odds alone do not decide.
        """
        scored = self.as_scored or self
        judged = tuple(replace(group, matrix=group.matrix.calibrated(calibration)) for group in scored.judged)
        thresholds = None if scored.thresholds is None else scored.thresholds.calibrated(calibration)
        return replace(
            scored, **_measured(judged, thresholds), judged=judged, applied=calibration, as_scored=scored
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON: no matrices, and None where there was no data."""
        numbers: dict[str, Any] = to_json(
            {
                "applied": None if self.applied is None else _as_json(self.applied),
                "thresholds": None if self.thresholds is None else asdict(self.thresholds),
                "metrics": asdict(self.metrics),
                "calibration": asdict(self.calibration),
                "criteria": None if self.criteria is None else self._criteria_as_json(self.criteria),
                "unreadable": [asdict(entry) for entry in self.unreadable],
            }
        )
        return numbers

    def _criteria_as_json(self, criteria: Criteria) -> dict[str, Any]:
        accuracy = {name: asdict(entry) for name, entry in self.by_criterion.items()}
        return {"combined": criteria.describe(), "pair_accuracy": accuracy}


def evaluate(
    scorer: Scorer,
    groups: Iterable[PreferenceGroup],
    *,
    criteria: Criteria | None = None,
    batch: int | None = None,
    progress: Advance | None = None,
    thresholds: Thresholds | None = None,
) -> Evaluation:
    """Score every group and measure.

    `groups` may be a stream, which is read ahead in another thread: only labels and matrices of those that
    are done stay in memory. `batch` is the number of groups a call of the scorer, None for what suits it; a
    remote scorer gets several calls at once. `progress` is called with the number of groups done. An image
    that the scorer cannot read costs its own candidate and nothing else, and so does a group that the scorer
    refuses; both are listed in `unreadable`. `thresholds` come from another split
    (`Evaluation.fitted_thresholds`). With `criteria`, each group is judged by these instead of its own
    criterion, and the combined matrix is measured.

    Raises:
        ConfigError: `batch` is less than 1.
        DatasetError: there is no group.
        ScoringError: the scorer cannot answer at all.
    """
    judged: list[JudgedGroup] = []
    by_criterion: dict[str, list[JudgedGroup]] = {name: [] for name in criteria.names} if criteria else {}
    unreadable: list[Unreadable] = []

    def asked(part: Sequence[PreferenceGroup]) -> list[Group]:
        own = [group.group() for group in part]
        return own if criteria is None else criteria.groups(own)

    batches = batched(scorer, groups, asked, batch)
    with closing(score_batches(scorer, batches, asked)) as scored:
        for part, answer in scored:
            matrices = answer
            if criteria is not None:
                matrices = criteria.combined(answer)
                for group, named in zip(part, criteria.answers(answer), strict=True):
                    for name, matrix in named.items():
                        by_criterion[name].append(JudgedGroup.of(group, matrix))
            for group, matrix in zip(part, matrices, strict=True):
                judged.append(JudgedGroup.of(group, matrix))
                unreadable += _unreadable(group, matrix)
            if progress is not None:
                progress(len(judged))
    if not judged:
        raise DatasetError("there is nothing to evaluate: the dataset split holds no group")
    return Evaluation(
        **_measured(judged, thresholds),
        judged=tuple(judged),
        unreadable=tuple(unreadable),
        criteria=criteria,
        by_criterion={name: pair_accuracy(pairs_of(part)) for name, part in by_criterion.items()},
    )


def to_json(value: Any) -> Any:
    """Dictionaries and lists as they are, and None for a number that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value


def _as_json(calibration: CalibrationMap) -> dict[str, Any]:
    return {"name": calibration.name, "parameters": dict(calibration.parameters)}


def _measured(judged: Sequence[JudgedGroup], thresholds: Thresholds | None) -> dict[str, Any]:
    return {
        "metrics": measure(judged, thresholds),
        "calibration": measure_calibration(pairs_of(judged)),
        "thresholds": thresholds,
    }


def _unreadable(group: PreferenceGroup, matrix: WinMatrix) -> list[Unreadable]:
    # A candidate that the dataset itself lacks (None) is no news.
    alone = [
        Unreadable(id=group.id, candidates=(n,), reason=reason)
        for n, (image, reason) in enumerate(zip(group.candidates, matrix.errors, strict=True))
        if reason and image is not None
    ]
    pairs = sorted(matrix.pair_errors.items())
    return alone + [Unreadable(id=group.id, candidates=pair, reason=reason) for pair, reason in pairs]
