"""Rows of a dataset on the Hub, streamed by `datasets`, and single files of its repository.

`hf://org/name` names a repository, `hf://org/name@revision` one of its branches, tags or commits.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from data_recipes.readers.part import Numbered, Part, report_unread
from prefrm.errors import DatasetError, MediaError, missing_extra
from prefrm.hub import HubRepository, import_hub

__all__ = ["HUB", "hub_commit", "hub_file", "hub_files", "hub_image", "hub_parts", "open_hub_file"]

HUB = "hf://"
BLOCK_BYTES = 2**23  # of a stream, downloaded at once


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
    repository = HubRepository.parse(source, "dataset")
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    with repository.reporting():
        found = datasets.load_dataset(repository.name, config, revision=repository.revision, streaming=True)
        sha = hub_commit(source)
    known = {name: splits[name] for name in found if name in splits}
    wanted: Mapping[str, str | None] = known or dict.fromkeys(found)
    report_unread(source, "splits", [name for name in found if name not in wanted])
    return [
        Part(
            name=f"{name}-{shard:05d}" if found[name].num_shards > 1 else name,
            read=_Shard(found[name], shard, columns, repository),
            split=split,
            columns=found[name].column_names or (),
            stamp=sha,
        )
        for name, split in wanted.items()
        for shard in range(found[name].num_shards)
    ]


class _Shard:
    """Rows of one shard, with images as they are stored."""

    def __init__(self, dataset: Any, shard: int, columns: Sequence[str], repository: HubRepository) -> None:
        self._dataset, self._shard, self._columns, self._repository = dataset, shard, columns, repository

    def __call__(self, start: int) -> Iterator[Numbered]:
        rows = self._dataset.decode(False).shard(self._dataset.num_shards, self._shard)
        if self._columns and rows.column_names:
            rows = rows.select_columns([name for name in rows.column_names if name in self._columns])
        with self._repository.reporting():
            yield from enumerate(rows.skip(start) if start else rows, start)


def hub_commit(source: str) -> str:
    """The commit that a revision is now. Raises `DatasetError`."""
    repository = HubRepository.parse(source, "dataset")
    with repository.reporting():
        found = import_hub().HfApi().dataset_info(repository.name, revision=repository.revision)
    return str(found.sha)


def hub_files(source: str, pattern: str = "*") -> list[str]:
    """Paths of the files of a repository that match a pattern, in order. Raises `DatasetError`."""
    repository = HubRepository.parse(source, "dataset")
    with repository.reporting():
        found = (
            import_hub()
            .HfApi()
            .list_repo_files(repository.name, revision=repository.revision, repo_type="dataset")
        )
    return sorted(path for path in found if fnmatch(path, pattern))


def hub_file(source: str, path: str) -> Path:
    """A file of a repository, in the cache of the Hub after it is downloaded. Raises `DatasetError`."""
    return HubRepository.parse(source, "dataset").file(path, absent="see the list of files on its page")


def hub_image(source: str, path: str) -> Path:
    """`hub_file`, of an image that a row names.

    Raises:
        MediaError: the repository has no such file.
        DatasetError: the Hub cannot be reached, or refuses it; that says nothing of the image.
    """
    try:
        return hub_file(source, path)
    except DatasetError as error:
        if isinstance(error.__cause__, import_hub().errors.RemoteEntryNotFoundError):
            raise MediaError(f"{source} has no file {path}") from error
        raise


def open_hub_file(source: str, path: str) -> IO[bytes]:
    """A file of a repository as a stream that is downloaded as it is read. Raises `DatasetError`."""
    repository = HubRepository.parse(source, "dataset")
    # Its slashes would be read as those of the path.
    revision = f"@{quote(repository.revision, safe='')}" if repository.revision else ""
    with repository.reporting():
        stream: IO[bytes] = (
            import_hub()
            .HfFileSystem()
            .open(f"datasets/{repository.name}{revision}/{path}", "rb", block_size=BLOCK_BYTES)
        )
    return stream
