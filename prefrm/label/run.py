"""Ask a scorer about every group of a dataset, shard by shard, and go on where an earlier run stopped."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from prefrm.chunks import chunks
from prefrm.errors import ConfigError, DatasetError, IncompleteMatrixError
from prefrm.label.shards import (
    Summary,
    check_folder,
    check_shard,
    claim_folder,
    labelled_shards,
    shard_path,
    write_shard,
)
from prefrm.progress import Advance
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import OnMissing, Scorer, WinMatrix, check_answer, check_on_missing

__all__ = ["label"]

SHARD_SIZE = 128


def label(
    scorer: Scorer,
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    *,
    judge: str,
    batch: int = 8,
    on_missing: OnMissing = "drop",
    shard_size: int = SHARD_SIZE,
    progress: Advance | None = None,
) -> Summary:
    """Write the win matrix of every group into `out/win_matrices/`; returns what is there in the end.

    May be stopped at any moment, by SIGKILL too: a shard is written whole or not at all, so at most
    `shard_size` groups are judged again, and the files end up the same as without the stop.

    Args:
        scorer: any scorer.
        groups: what to label, in the same order each time; their comparisons are not looked at.
        out: the output folder.
        judge: says who judges, such as a bundle's hash; a folder belongs to one judge.
        batch: groups a call of the scorer.
        on_missing: "drop" writes a pair that was neither judged nor inferred as invalid, with its reason;
            "raise" stops at it.
        shard_size: groups a file.
        progress: called with the number of groups done.

    Raises:
        ConfigError: `batch`, `shard_size` or `on_missing` is not as described.
        DatasetError: there is no group, or `out` was labelled from other data or by another judge.
        IncompleteMatrixError: a pair was neither judged nor inferred and `on_missing` is "raise"; the record
            is named.
        ScoringError: the scorer cannot answer, or not with one matrix for each group; the shards that are
            complete stay.
    """
    check_on_missing(on_missing)
    if batch < 1:
        raise ConfigError(f"batch must be at least 1; received {batch}")
    parts = chunks(groups, shard_size)
    if (first := next(parts, None)) is None:
        raise DatasetError("there is nothing to label: the dataset split holds no group")
    folder = Path(out)
    check_folder(folder, judge=judge, shard_size=shard_size)
    total, count = Summary(), 0
    for count, part in enumerate(chain([first], parts), start=1):
        path = shard_path(folder, count - 1)
        if path.exists():
            done = check_shard(path, part)
            if on_missing == "raise" and done.unjudged_pairs:
                raise IncompleteMatrixError(
                    f"{path} holds {done.unjudged_pairs} pairs that were neither judged nor inferred; "
                    'pass on_missing="drop" to keep them as invalid'
                )
        else:
            matrices = _score(scorer, part, batch, on_missing, progress, total.groups)
            claim_folder(folder, judge=judge, shard_size=shard_size)
            done = write_shard(path, part, matrices)
        total += done
        if progress is not None:
            progress(total.groups)
    if len(found := labelled_shards(folder)) > count:
        raise DatasetError(
            f"{folder} holds {len(found)} shards, but these {total.groups} groups fill {count}: it was "
            "labelled from other data; give another output folder, or delete this one to label again"
        )
    return total


def _score(
    scorer: Scorer,
    groups: list[PreferenceGroup],
    batch: int,
    on_missing: OnMissing,
    progress: Advance | None,
    before: int,
) -> list[WinMatrix]:
    matrices: list[WinMatrix] = []
    for part in chunks(groups, batch):
        asked = [group.group() for group in part]
        answer = scorer.score(asked)
        check_answer(answer, asked)
        for group, matrix in zip(part, answer, strict=True):
            _require_complete(group, matrix, on_missing)
        matrices += answer
        if progress is not None:
            progress(before + len(matrices))
    return matrices


def _require_complete(group: PreferenceGroup, matrix: WinMatrix, on_missing: OnMissing) -> None:
    try:
        matrix.require_complete(on_missing)
    except IncompleteMatrixError as error:
        raise IncompleteMatrixError(f"record {group.id!r}: {error}") from error
