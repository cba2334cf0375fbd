"""Evaluate any scorer on preference groups.

Scores each group once. An `Evaluation` keeps the matrices, so that measuring again at another
temperature costs nothing. Writes nothing; that is `prefrm.eval.report`.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from prefrm.chunks import chunks
from prefrm.errors import DatasetError
from prefrm.eval.calibration import Calibration, calibrate, fit_temperature, tempered
from prefrm.eval.metrics import Metrics, measure
from prefrm.eval.pairs import JudgedGroup, pairs_of
from prefrm.eval.thresholds import Thresholds
from prefrm.pipeline import batch_size, score_batches
from prefrm.progress import Advance
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import Scorer, WinMatrix

__all__ = ["Evaluation", "Unreadable", "evaluate", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A candidate that is in the dataset and could not be judged: its record's id, its index, the reason."""

    id: str
    candidate: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a scorer said of a dataset, measured.

    Attributes:
        judged: every group's labels and matrix, in the dataset's order.
        unreadable: the candidates that were left out, and why; the rest of their group was judged.
        metrics: agreement with the labels.
        calibration: what the probabilities are worth.
        temperature: what the scorer's log-odds were divided by afterwards; 1 is the scorer as it is.
        thresholds: the tie thresholds of another split; None leaves out the accuracies that need them.
    """

    judged: tuple[JudgedGroup, ...]
    unreadable: tuple[Unreadable, ...]
    metrics: Metrics
    calibration: Calibration
    temperature: float = 1.0
    thresholds: Thresholds | None = None

    def fitted_temperature(self) -> float:
        """The temperature that these very labels ask for; fit on validation data, not on the test split."""
        pairs = pairs_of(self.judged)
        return fit_temperature(pairs.p, pairs.target, pairs.weight)

    def fitted_thresholds(self, split: str) -> Thresholds:
        """The tie thresholds that these very labels ask for; for `evaluate` on another split than `split`."""
        return Thresholds.fit(pairs_of(self.judged), split)

    def tempered(self, temperature: float) -> "Evaluation":
        """The evaluation of the same scorer at another temperature (on top of its own); nothing is scored.

        No verdict on who wins changes, nor do ties by threshold. Whether a judge that models ties says
        tie may change: it does not decide that by log-odds alone.
        """
        judged = tuple(replace(group, matrix=tempered(group.matrix, temperature)) for group in self.judged)
        thresholds = None if self.thresholds is None else self.thresholds.tempered(temperature)
        return _evaluation(judged, self.unreadable, self.temperature * temperature, thresholds)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON: no matrices, and None where there was no data."""
        numbers: dict[str, Any] = to_json(
            {
                "temperature": self.temperature,
                "thresholds": None if self.thresholds is None else asdict(self.thresholds),
                "metrics": asdict(self.metrics),
                "calibration": asdict(self.calibration),
                "unreadable": [asdict(entry) for entry in self.unreadable],
            }
        )
        return numbers


def evaluate(
    scorer: Scorer,
    groups: Iterable[PreferenceGroup],
    *,
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
    (`Evaluation.fitted_thresholds`).

    Raises:
        ConfigError: `batch` is less than 1.
        DatasetError: there is no group.
        ScoringError: the scorer cannot answer at all.
    """
    judged: list[JudgedGroup] = []
    unreadable: list[Unreadable] = []
    batches = chunks(groups, batch_size(scorer, batch))
    with closing(score_batches(scorer, batches, lambda part: [group.group() for group in part])) as scored:
        for part, matrices in scored:
            for group, matrix in zip(part, matrices, strict=True):
                judged.append(JudgedGroup.of(group, matrix))
                unreadable += _unreadable(group, matrix)
            if progress is not None:
                progress(len(judged))
    if not judged:
        raise DatasetError("there is nothing to evaluate: the dataset split holds no group")
    return _evaluation(tuple(judged), tuple(unreadable), 1.0, thresholds)


def to_json(value: Any) -> Any:
    """Dictionaries and lists as they are, and None for a number that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value


def _evaluation(
    judged: tuple[JudgedGroup, ...],
    unreadable: tuple[Unreadable, ...],
    temperature: float,
    thresholds: Thresholds | None,
) -> Evaluation:
    return Evaluation(
        judged=judged,
        unreadable=unreadable,
        metrics=measure(judged, thresholds),
        calibration=calibrate(pairs_of(judged)),
        temperature=temperature,
        thresholds=thresholds,
    )


def _unreadable(group: PreferenceGroup, matrix: WinMatrix) -> list[Unreadable]:
    # A candidate that the dataset itself lacks (None) is no news.
    return [
        Unreadable(id=group.id, candidate=n, reason=reason)
        for n, (image, reason) in enumerate(zip(group.images, matrix.errors, strict=True))
        if reason and image is not None
    ]
