"""Readers: from a source as it is published to rows, one dictionary each. They know no dataset by name.

`read_source` opens a file, a folder of files or a dataset on the Hub by what it is: parquet, Arrow, JSON,
JSON Lines, CSV, webdataset tars and TFRecord. Each gives `Part`s, whose rows are read as a stream, from any
row on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from data_recipes.readers.archives import read_webdataset
from data_recipes.readers.hub import HUB, hub_file, hub_files, hub_parts
from data_recipes.readers.json_rows import read_json
from data_recipes.readers.part import (
    SPLIT_NAMES,
    Numbered,
    Part,
    Row,
    in_split,
    is_hidden,
    named_split,
    report_unread,
    stamp,
)
from data_recipes.readers.tables import read_arrow, read_parquet, survey_parquet
from data_recipes.readers.tfrecord import read_tfrecord
from prefrm.errors import DatasetError
from prefrm.rows import read_rows, read_text

__all__ = [
    "HUB",
    "SPLIT_NAMES",
    "Numbered",
    "Part",
    "Row",
    "in_split",
    "read_files",
    "read_rows",
    "read_source",
    "read_text",
]

# Of these, `Part.read` skips the rows before the one that it starts with.
SEQUENTIAL: Mapping[str, Callable[[Path], Iterator[Numbered]]] = {
    ".json": read_json,
    ".tar": read_webdataset,
    ".tfrecord": read_tfrecord,
    ".tfrecords": read_tfrecord,
}
FORMATS = (".arrow", ".parquet", ".tar", ".tfrecord", ".tfrecords", ".jsonl", ".csv", ".json")
"""Of a folder, files of the first format that is in it are read: what is beside them describes them."""


def read_source(
    source: str,
    *,
    columns: Sequence[str] = (),
    required: Sequence[str] = (),
    files: str = "*",
    splits: Mapping[str, str] = SPLIT_NAMES,
    config: str | None = None,
) -> list[Part]:
    """The parts of a source.

    Args:
        source: a file, a folder whose files are read in the order of their names, or `hf://org/name[@revision]`.
        columns: those that are read of a parquet or Arrow file and of the Hub, where a file has them; all,
            if empty.
        required: columns that the header of a CSV file must have, and that a line of JSON must not have
            twice.
        files: of a folder, the files whose path ends as this pattern says.
        splits: the source's split by the name of a file or a folder (`readers.part.named_split`). Of a
            folder, files without a split in their names are skipped if there are others.
        config: of a dataset on the Hub, which of its configurations.

    Raises:
        DatasetError: the file or dataset does not exist, or has no file of a known format.
    """
    if source.startswith(HUB):
        return hub_parts(source, columns=columns, splits=splits, config=config)
    root = Path(source)
    if root.is_file():
        return [_part(root, root.name, columns, splits, required)]
    if not root.is_dir():
        raise DatasetError(f"{source} does not exist")
    parts = [_part(path, str(path.relative_to(root)), columns, splits) for path in _found(root, files)]
    if not parts:
        wanted = f"of a known format: {', '.join(FORMATS)}" if files == "*" else f"with a name like {files}"
        raise DatasetError(f"{source} has no file {wanted}")
    named = [part for part in parts if part.split is not None] or parts
    report_unread(source, "files", [part.name for part in parts if part not in named])
    return named


def read_files(
    source: str, files: str, *, columns: Sequence[str] = (), splits: Mapping[str, str] = SPLIT_NAMES
) -> list[Part]:
    """`read_source`, where the Hub holds files that `datasets` does not read as rows: they are downloaded.

    Raises:
        DatasetError: as `read_source`.
    """
    if not source.startswith(HUB):
        return read_source(source, columns=columns, files=files, splits=splits)
    names = hub_files(source, files)
    if not names:
        raise DatasetError(f"{source} has no file {files}")
    wanted = [name for name in names if named_split(name, splits) is not None] or names
    report_unread(source, "files", [name for name in names if name not in wanted])
    # The cache has no other files in their folder.
    return [replace(_part(hub_file(source, name), name, columns, splits), folder=None) for name in wanted]


def _found(root: Path, pattern: str) -> list[Path]:
    # The folder may itself be one that the pattern names.
    every = sorted(
        path
        for path in root.rglob("*")
        if path.absolute().match(pattern) and path.is_file() and not _is_kept_for_itself(path, root)
    )
    kinds = [path.suffix.lower() for path in every]
    first = next((kind for kind in FORMATS if kind in kinds), None)
    return [path for path, kind in zip(every, kinds, strict=True) if kind == first]


def _is_kept_for_itself(path: Path, root: Path) -> bool:
    """Whether a file does not belong to the source: hidden files, and caches of `datasets`."""
    return is_hidden(path.relative_to(root)) or path.match("cache-*.arrow")


def _part(
    path: Path, name: str, columns: Sequence[str], splits: Mapping[str, str], required: Sequence[str] = ()
) -> Part:
    kind = path.suffix.lower()
    total, found = survey_parquet(path) if kind == ".parquet" else (None, ())
    read: Callable[[int], Iterator[Numbered]]
    if kind == ".parquet":
        read = partial(read_parquet, path, columns)
    elif kind == ".arrow":
        read = partial(read_arrow, path, columns)
    elif kind in (".csv", ".jsonl"):
        read = partial(_skipping, partial(read_rows, columns=required), path)
    elif kind in SEQUENTIAL:
        read = partial(_skipping, SEQUENTIAL[kind], path)
    else:
        raise DatasetError(f"{path} is not of a known format: {', '.join(FORMATS)}")
    return Part(
        # A name may have bytes in it that are not UTF-8.
        name=name.encode("utf-8", "replace").decode(),
        read=read,
        split=named_split(name, splits),
        folder=path.parent,
        total=total,
        columns=found,
        stamp=stamp(path),
    )


def _skipping(read: Callable[[Path], Iterator[Numbered]], path: Path, start: int) -> Iterator[Numbered]:
    return islice(read(path), start, None)
