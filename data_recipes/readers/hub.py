"""Rows of a dataset on the Hub, streamed by `datasets`, and single files of its repository.

`hf://org/name` names a repository, `hf://org/name@revision` one of its branches, tags or commits.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from data_recipes.readers.part import Numbered, Part
from prefrm.errors import DatasetError, missing_extra
from prefrm.hub import HubRepository

__all__ = ["HUB", "hub_commit", "hub_file", "hub_files", "hub_parts", "open_hub_file"]

HUB = "hf://"


def hub_parts(
    source: str, *, columns: Sequence[str], splits: Mapping[str, str], config: str | None
) -> list[Part]:
    """A part for each shard of each split of a dataset; nothing but its description is downloaded.

    Args:
        source: `hf://org/name[@revision]`.
        columns: those that are read, of which the dataset may lack some; all, if empty.
        splits: the split of prefrm by that of the dataset; others are not read, unless none is among them.
        config: which of the dataset's configurations; None where it has one.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DatasetError: the Hub has no such dataset, or it cannot be read.
    """
    repository, revision = _split(source)
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "train") from error
    try:
        found = datasets.load_dataset(repository, config, revision=revision, streaming=True)
        sha = hub_commit(source)
    # Of missing repositories, networks and formats there are as many kinds as libraries below.
    except Exception as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error
    known = {name: splits[name] for name in found if name in splits}
    wanted: Mapping[str, str | None] = known or dict.fromkeys(found)
    return [
        Part(
            name=f"{name}-{shard:05d}" if found[name].num_shards > 1 else name,
            read=_Shard(found[name], shard, columns, source),
            split=split,
            stamp=sha,
        )
        for name, split in wanted.items()
        for shard in range(found[name].num_shards)
    ]


class _Shard:
    """Rows of one shard, with images as they are stored."""

    def __init__(self, dataset: Any, shard: int, columns: Sequence[str], source: str) -> None:
        self._dataset, self._shard, self._columns, self._source = dataset, shard, columns, source

    def __call__(self, start: int) -> Iterator[Numbered]:
        rows = self._dataset.decode(False).shard(self._dataset.num_shards, self._shard)
        if self._columns and rows.column_names:
            rows = rows.select_columns([name for name in rows.column_names if name in self._columns])
        try:
            yield from enumerate(rows.skip(start) if start else rows, start)
        except Exception as error:
            raise DatasetError(f"{self._source} cannot be read: {error}") from error


def hub_commit(source: str) -> str:
    """The commit that a revision is now."""
    repository, revision = _split(source)
    return str(_hub().HfApi().dataset_info(repository, revision=revision).sha)


def hub_files(source: str, pattern: str = "*") -> list[str]:
    """Paths of the files of a repository that match a pattern, in order. Raises `DatasetError`."""
    repository, revision = _split(source)
    try:
        found = _hub().HfApi().list_repo_files(repository, revision=revision, repo_type="dataset")
    except Exception as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error
    return sorted(path for path in found if fnmatch(path, pattern))


def hub_file(source: str, path: str) -> Path:
    """A file of a repository, in the cache of the Hub after it is downloaded. Raises `DatasetError`."""
    repository, revision = _split(source)
    try:
        return Path(_hub().hf_hub_download(repository, path, revision=revision, repo_type="dataset"))
    except Exception as error:
        raise DatasetError(f"{source}/{path} cannot be read: {error}") from error


def open_hub_file(source: str, path: str) -> IO[bytes]:
    """A file of a repository as a stream that is downloaded as it is read. Raises `DatasetError`."""
    repository, revision = _split(source)
    place = f"datasets/{repository}{f'@{revision}' if revision else ''}/{path}"
    try:
        stream: IO[bytes] = _hub().HfFileSystem().open(place, "rb", block_size=2**23)
        return stream
    except Exception as error:
        raise DatasetError(f"{source}/{path} cannot be read: {error}") from error


def _split(source: str) -> tuple[str, str | None]:
    found = HubRepository.parse(source, "dataset")
    return found.name, found.revision


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "train") from error
    return huggingface_hub
