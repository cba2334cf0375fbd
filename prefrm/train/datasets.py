"""The datasets of a run: checked and counted in one pass, then opened as what the judge learns from."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path

from prefrm.config import from_mapping, to_mapping
from prefrm.data import dataset_folder
from prefrm.errors import DatasetError
from prefrm.media import digest
from prefrm.records import DatasetInfo, read_info
from prefrm.train.config import DataConfig, MixConfig
from prefrm.train.distributed import gather, is_first
from prefrm.train.groups import StoredGroups, StreamedGroups
from prefrm.train.mixing import Groups, Mixture
from prefrm.train.prepared import Survey, prepare_split
from prefrm.winmatrix import TrainingInputs

__all__ = ["data_fingerprint", "local_data", "open_mixture", "read_sources", "survey_data", "training_inputs"]

Surveys = Mapping[str, Survey]
"""By the setting that names the split: `data.train`, `data.mix[0].train`, `data.validation`, `data.test`."""


def local_data(data: DataConfig) -> DataConfig:
    """The same datasets, those on the Hub downloaded, each as the folder of one commit in its cache.

    Raises:
        DatasetError: the Hub has no such dataset or split, or cannot be reached.
    """
    measured = [split for split in (data.validation, data.test) if split is not None]
    return replace(
        data,
        path=dataset_folder(data.path, [data.train, *measured]),
        mix=tuple(replace(one, path=dataset_folder(one.path, [one.train])) for one in data.mix),
    )


def survey_data(data: DataConfig, cache: Path) -> dict[str, Survey]:
    """Survey every split, so that a mistake in the last of them is found before the first is used.

    Args:
        data: the datasets; the first process reads for all of its machine.
        cache: for what cannot be kept beside the data.

    Raises:
        DatasetError, RecordError: a split is absent, breaks its own rules, compares nothing, or is not the
            same on all machines.
    """
    mine = {name: to_mapping(survey) for name, survey in _survey(data, cache)} if is_first() else {}
    surveys = {name: from_mapping(Survey, survey) for name, survey in gather(mine)[0].items()}
    if not is_first():
        _check_copies(data, surveys, cache)
    return surveys


def data_fingerprint(data: DataConfig, surveys: Surveys) -> str:
    """Of the training split; of several, of all of them with their weights."""
    if not data.mix:
        return surveys["data.train"].fingerprint
    parts = [[one.weight, surveys[name].fingerprint] for name, one in _learned(data).items()]
    return digest(json.dumps(parts).encode())


def training_inputs(data: DataConfig, surveys: Surveys) -> TrainingInputs:
    """Of all datasets to learn from."""
    return reduce(TrainingInputs.merged, (surveys[name].inputs for name in _learned(data)))


def read_sources(data: DataConfig) -> list[DatasetInfo]:
    """The recipe, licence and source of every dataset to learn from that a recipe built."""
    folders = dict.fromkeys(Path(one.path) for one in _learned(data).values())
    return [read_info(folder) for folder in folders if (folder / "dataset.json").is_file()]


def open_mixture(data: DataConfig, surveys: Surveys, *, seed: int, cache: Path) -> Mixture:
    """The training data; `cache` is as in `survey_data`."""
    learned = _learned(data)
    datasets = [_open(one, data, surveys[name], cache / name) for name, one in learned.items()]
    return Mixture(datasets, seed=seed, weights=[one.weight for one in learned.values()])


def _open(one: MixConfig, data: DataConfig, survey: Survey, cache: Path) -> Groups:
    if data.stream:
        return StreamedGroups(one.path, one.train, size=survey.groups, buffer=data.shuffle_buffer)
    table = prepare_split(one.path, one.train, table=True, spare=cache).table
    assert table is not None
    return StoredGroups(table)


def _learned(data: DataConfig) -> dict[str, MixConfig]:
    """The datasets to learn from, by the setting that names the split."""
    first = MixConfig(path=data.path, train=data.train, weight=data.weight)
    return {"data.train": first} | {f"data.mix[{n}].train": one for n, one in enumerate(data.mix)}


def _survey(data: DataConfig, cache: Path) -> Iterator[tuple[str, Survey]]:
    for name, one in _learned(data).items():
        yield name, _survey_split(name, one.path, one.train, cache, table=not data.stream)
    for name, split in (("data.validation", data.validation), ("data.test", data.test)):
        if split is not None:
            advice = f"; or set {name}=null to do without"
            yield name, _survey_split(name, data.path, split, cache, table=False, advice=advice)


def _check_copies(data: DataConfig, surveys: Surveys, cache: Path) -> None:
    """Raise `DatasetError` if this machine's copy of a training split is not that of the first process."""
    for name, one in _learned(data).items():
        if _survey_split(name, one.path, one.train, cache, table=not data.stream) != surveys[name]:
            raise DatasetError(
                f"{name}: {one.path}/{one.train}.parquet differs between the machines of this run; copy the "
                "dataset of one to all"
            )


def _survey_split(
    name: str, folder: Path, split: str, cache: Path, *, table: bool, advice: str = ""
) -> Survey:
    try:
        return prepare_split(folder, split, table=table, spare=cache / name).survey
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}{advice}") from error
