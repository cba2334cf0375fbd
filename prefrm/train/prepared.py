"""One pass over a split before the first step: checked, counted, hashed, and copied for random access.

Its result is kept beside the data, for every process, later run and `--resume`:

    data/.prefrm/train.json    counts and hashes, and the size and times of the file that they are of
    data/.prefrm/train.arrow   its groups for `StoredGroups`, unless they are only ever streamed
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock

from prefrm.config import from_mapping
from prefrm.errors import DatasetError
from prefrm.files import write_file_whole, write_whole
from prefrm.hub import in_hub_cache
from prefrm.media import digest
from prefrm.records import PreferenceGroup, fingerprint, read_groups, row_group_sizes, split_file
from prefrm.train.groups import storing
from prefrm.winmatrix import Kind, TrainingInputs

__all__ = ["Prepared", "Survey", "prepare_split"]

FORMAT_VERSION = 4
FOLDER = ".prefrm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Contents of a split.

    Attributes:
        fingerprint: of its groups, in order.
        layout: hash of the sizes of the file's row groups.
        groups: how many groups have comparisons.
        kinds: of their candidates.
        inputs: their context images and criteria.
    """

    fingerprint: str
    layout: str
    groups: int
    kinds: tuple[Kind, ...]
    inputs: TrainingInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A survey, and the file of `StoredGroups`, if it was requested."""

    survey: Survey
    table: Path | None


def prepare_split(folder: Path, split: str, *, table: bool, spare: Path) -> Prepared:
    """The survey of a split and, with `table`, a file of its groups; of an earlier pass, if one was kept.

    Args:
        folder: a dataset folder.
        split: one of its splits.
        table: whether the file of `StoredGroups` is wanted.
        spare: a folder that is used where nothing may be written beside the data.

    Raises:
        DatasetError: the split is absent or unreadable, or compares nothing, or no disk has room for the
            table.
        RecordError: a record breaks its own rules.
    """
    file = _identity(folder, split)
    # The Hub's cache holds what the Hub has, and nothing else.
    places = (spare,) if in_hub_cache(folder) else (folder / FOLDER, spare)
    for place in places:
        if (found := _kept(place, split, file, table)) is not None:
            return found
    place = next(place for place in places if _can_be_written(place))
    # A process that waited here finds the result of the other one.
    with FileLock(place / f".{split}.lock"):
        return _kept(place, split, file, table) or _prepare(place, folder, split, file, table)


def _prepare(place: Path, folder: Path, split: str, file: Mapping[str, int], table: bool) -> Prepared:
    target = place / f"{split}.arrow"
    try:
        with write_file_whole(target) if table else nullcontext() as partial:
            survey = _survey(folder, split, partial)
    except OSError as error:
        raise DatasetError(
            f"{target} cannot be written ({error.strerror or error}); it takes as much room as the images of "
            f"{folder}/{split}.parquet: make room, or set data.stream=true, which needs none"
        ) from error
    size = target.stat().st_size if table else None
    kept = {"format_version": FORMAT_VERSION, "file": file, "survey": asdict(survey), "table": size}
    write_whole(place / f"{split}.json", json.dumps(kept))
    return Prepared(survey=survey, table=target if table else None)


def _survey(folder: Path, split: str, table: Path | None) -> Survey:
    kinds: Counter[Kind] = Counter()
    inputs: TrainingInputs | None = None

    def counted(read: Iterable[PreferenceGroup]) -> Iterator[PreferenceGroup]:
        nonlocal inputs
        for group in read:
            if group.comparisons:
                kinds[group.group().kind] += 1
                own = TrainingInputs.of(len(group.context), group.criterion)
                inputs = own if inputs is None else inputs.merged(own)
            yield group

    read = read_groups(folder, split)
    content = fingerprint(counted(read if table is None else storing(read, table)))
    sizes = json.dumps(row_group_sizes(folder, split))
    if inputs is None:
        raise DatasetError(f"{folder}/{split}.parquet holds no comparison")
    return Survey(
        fingerprint=content,
        layout=digest(sizes.encode()),
        groups=kinds.total(),
        kinds=tuple(kind for kind in get_args(Kind) if kinds[kind]),
        inputs=inputs,
    )


def _identity(folder: Path, split: str) -> dict[str, int]:
    """What changes with a file's content: its size, and when it was written and replaced."""
    stat = split_file(folder, split).stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}


def _kept(place: Path, split: str, file: Mapping[str, int], table: bool) -> Prepared | None:
    """The result of an earlier pass over that file; None without one, or if its table is missing."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept: dict[str, Any] = json.loads((place / f"{split}.json").read_text(encoding="utf-8"))
        if kept["format_version"] == FORMAT_VERSION and kept["file"] == file:
            target = place / f"{split}.arrow"
            if not table or kept["table"] == target.stat().st_size:
                return Prepared(survey=from_mapping(Survey, kept["survey"]), table=target if table else None)
    return None


def _can_be_written(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)
