"""Scoring of every group of a dataset, shard by shard, which continues where an earlier run stopped."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from prefrm.errors import ConfigError, DatasetError, IncompleteMatrixError
from prefrm.label.shards import (
    ShardWriter,
    Summary,
    check_folder,
    check_shard,
    claim_folder,
    labelled_shards,
    shard_path,
)
from prefrm.pipeline import batched, score_batches
from prefrm.progress import Advance
from prefrm.records import PreferenceGroup
from prefrm.rewards import Criteria
from prefrm.winmatrix import Group, OnMissing, Scorer, WinMatrix, check_on_missing

__all__ = ["label"]

SHARD_SIZE = 128


_Answer = tuple[WinMatrix, Mapping[str, WinMatrix]]
"""The matrix of a group, and those by each of several criteria."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Groups of one shard that are scored together; or none, and the summary of a shard that is there."""

    path: Path
    groups: Sequence[PreferenceGroup] = ()
    summary: Summary | None = None


def label(
    scorer: Scorer,
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    *,
    judge: str,
    criteria: Criteria | None = None,
    batch: int | None = None,
    on_missing: OnMissing = "drop",
    shard_size: int = SHARD_SIZE,
    progress: Advance | None = None,
) -> Summary:
    """Write the win matrix of every group into `out/win_matrices/`; returns the summary of the folder.

    May be stopped at any moment, by SIGKILL too: a shard is written whole or not at all, so at most
    `shard_size` groups and the calls under way are judged again, and the files end up the same as without the
    stop. The next groups are read while some are scored, in another thread; a remote scorer gets several
    calls at once. No more than these are in memory.

    A group that alone exceeds the device's memory, like one that a server refuses, is one whose pairs were
    not judged.

    Args:
        scorer: any scorer.
        groups: what to label, in the same order each time; their comparisons are not read.
        out: the output folder.
        judge: names the judge, such as a bundle's hash; a folder belongs to one judge.
        criteria: by which each group is judged, instead of its own criterion; the combined matrix is
            written, and beside it those of several criteria. None leaves each group its own.
        batch: groups a call of the scorer; None for what suits it.
        on_missing: "drop" writes a pair that was neither judged nor inferred as invalid, with its reason;
            "raise" stops at it.
        shard_size: groups a file.
        progress: called with the number of groups done.

    Raises:
        ConfigError: `batch`, `shard_size` or `on_missing` is not as described.
        DatasetError: there is no group, or `out` was labelled from other data, by another judge or by other
            criteria.
        IncompleteMatrixError: a pair was neither judged nor inferred and `on_missing` is "raise"; the record
            is named.
        ScoringError: the scorer cannot answer, or not with one matrix for each group; the shards that are
            complete stay.
    """
    check_on_missing(on_missing)
    for name, value in (("batch", batch), ("shard_size", shard_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1; received {value}")
    folder = Path(out)
    check_folder(folder, judge=judge, shard_size=shard_size, criteria=criteria)
    total, shard = Summary(), None

    def asked(part: Sequence[PreferenceGroup]) -> list[Group]:
        own = [group.group() for group in part]
        return own if criteria is None else criteria.groups(own)

    def split(part: Iterable[PreferenceGroup]) -> Iterator[list[PreferenceGroup]]:
        return batched(scorer, part, asked, batch)

    batches = _batches(groups, folder, shard_size, split, on_missing)
    with closing(score_batches(scorer, batches, lambda one: asked(one.groups))) as scored:
        for part, matrices in scored:
            if part.summary is not None:
                total += part.summary
            else:
                shard = shard or ShardWriter(part.path, criteria)
                _add(shard, part.groups, _answers(matrices, criteria), on_missing)
            if shard is not None and shard.summary.groups == shard_size:
                total, shard = total + _written(shard, folder, judge, shard_size, criteria), None
            if progress is not None:
                progress(total.groups + (shard.summary.groups if shard else 0))
    if shard is not None:
        total += _written(shard, folder, judge, shard_size, criteria)
    _check_count(folder, total.groups, math.ceil(total.groups / shard_size))
    return total


def _batches(
    groups: Iterable[PreferenceGroup],
    folder: Path,
    shard_size: int,
    split: Callable[[Iterable[PreferenceGroup]], Iterable[Sequence[PreferenceGroup]]],
    on_missing: OnMissing,
) -> Iterator[_Batch]:
    """The batches of each shard; of one that is there, which is compared with its groups, the summary."""
    rest = iter(groups)
    for number in count():
        if (first := next(rest, None)) is None:
            return
        # Drawn as it is needed, so that no shard's images are in memory at once.
        part = chain([first], islice(rest, shard_size - 1))
        path = shard_path(folder, number)
        if path.exists():
            yield _Batch(path=path, summary=_checked(path, part, on_missing))
        else:
            yield from (_Batch(path=path, groups=some) for some in split(part))


def _answers(matrices: Sequence[WinMatrix], criteria: Criteria | None) -> list[_Answer]:
    if criteria is None:
        return [(matrix, {}) for matrix in matrices]
    parts = criteria.answers(matrices) if len(criteria.names) > 1 else [{}] * len(matrices)
    return list(zip(criteria.combined(matrices), parts, strict=True))


def _checked(path: Path, groups: Iterable[PreferenceGroup], on_missing: OnMissing) -> Summary:
    done = check_shard(path, groups)
    if on_missing == "raise" and done.unjudged_pairs:
        raise IncompleteMatrixError(
            f"{path} holds {done.unjudged_pairs} pairs that were neither judged nor inferred; "
            'pass on_missing="drop" to keep them as invalid'
        )
    return done


def _add(
    shard: ShardWriter,
    groups: Sequence[PreferenceGroup],
    answers: Sequence[_Answer],
    on_missing: OnMissing,
) -> None:
    for group, (matrix, parts) in zip(groups, answers, strict=True):
        try:
            matrix.require_complete(on_missing)
        except IncompleteMatrixError as error:
            raise IncompleteMatrixError(f"record {group.id!r}: {error}") from error
        shard.add(group, matrix, parts)


def _written(
    shard: ShardWriter, folder: Path, judge: str, shard_size: int, criteria: Criteria | None
) -> Summary:
    claim_folder(folder, judge=judge, shard_size=shard_size, criteria=criteria)
    shard.write()
    return shard.summary


def _check_count(folder: Path, groups: int, shards: int) -> None:
    if not groups:
        raise DatasetError("there is nothing to label: the dataset split holds no group")
    if len(found := labelled_shards(folder)) > shards:
        raise DatasetError(
            f"{folder} holds {len(found)} shards, but these {groups} groups fill {shards}: it was "
            "labelled from other data; give another output folder, or delete this one to label again"
        )
