"""The datasets of a run: checked and counted in one pass, then opened as what the judge learns from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prefrm.errors import DatasetError
from prefrm.records import PreferenceGroup, fingerprint, read_groups
from prefrm.train.config import DataConfig, MixConfig
from prefrm.train.examples import Unit, load_examples
from prefrm.train.mixing import Examples, Mixture
from prefrm.train.processes import gather, is_first
from prefrm.train.streaming import StreamedExamples

__all__ = ["Survey", "data_fingerprint", "open_mixture", "survey_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in a training split: its fingerprint, its comparisons, and the groups that have any."""

    fingerprint: str
    comparisons: int
    groups: int

    def examples(self, unit: Unit) -> int:
        """How many examples they make."""
        return 2 * self.comparisons if unit == "pair" else self.groups


def survey_data(data: DataConfig) -> list[Survey]:
    """Read every split once, so that a mistake in the last of them is found before the first is used.

    Returns:
        One survey for each dataset to learn from; the first process reads for all.

    Raises:
        DatasetError, RecordError: a split is absent, breaks its own rules, or compares nothing.
    """
    surveys = [asdict(survey) for survey in _survey(data)] if is_first() else []
    return [Survey(**survey) for survey in gather(surveys)[0]]


def data_fingerprint(data: DataConfig, surveys: Sequence[Survey]) -> str:
    """Of the training split; of several, of all of them with their weights."""
    if not data.mix:
        return surveys[0].fingerprint
    parts = [[one.weight, survey.fingerprint] for one, survey in zip(_learned(data), surveys, strict=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def open_mixture(
    data: DataConfig, surveys: Sequence[Survey], *, unit: Unit, seed: int, cache: Path
) -> Mixture:
    """What a judge learns from; memory-mapped tables are kept in `cache`, which the caller deletes."""
    learned = _learned(data)
    datasets: list[Examples] = [
        StreamedExamples(
            one.path, one.train, unit=unit, size=survey.examples(unit), buffer=data.shuffle_buffer
        )
        if data.stream
        else load_examples(one.path, one.train, unit=unit, cache=cache / str(number))
        for number, (one, survey) in enumerate(zip(learned, surveys, strict=True))
    ]
    return Mixture(datasets, seed=seed, weights=[one.weight for one in learned])


def _learned(data: DataConfig) -> list[MixConfig]:
    return [MixConfig(path=data.path, train=data.train, weight=data.weight), *data.mix]


def _survey(data: DataConfig) -> Iterator[Survey]:
    names = ["data.train", *(f"data.mix[{number}].train" for number in range(len(data.mix)))]
    for name, one in zip(names, _learned(data), strict=True):
        yield _survey_split(name, one.path, one.train, "")
    for role in ("validation", "test"):
        if (split := getattr(data, role)) is not None:
            _survey_split(f"data.{role}", data.path, split, f"; or set data.{role}=null to do without")


def _survey_split(name: str, folder: Path, split: str, advice: str) -> Survey:
    comparisons = groups = 0

    def counted() -> Iterator[PreferenceGroup]:
        nonlocal comparisons, groups
        for group in read_groups(folder, split):
            comparisons += len(group.comparisons)
            groups += bool(group.comparisons)
            yield group

    try:
        digest = fingerprint(counted())
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}{advice}") from error
    if not comparisons:
        raise DatasetError(f"{name}: {folder}/{split}.parquet holds no comparison{advice}")
    return Survey(fingerprint=digest, comparisons=comparisons, groups=groups)
