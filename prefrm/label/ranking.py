"""The ranking of each labelled group as a table for people and spreadsheets: one line for each file."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prefrm.label.shards import read_matrices
from prefrm.records import PreferenceGroup
from prefrm.rewards import ranks

__all__ = ["write_ranking"]

FILE = "ranking.csv"
COLUMNS = ("prompt", "rank", "win_rate", "file", "group")


def write_ranking(
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    files: Callable[[PreferenceGroup], Sequence[Sequence[str]]],
) -> Path:
    """Write `out/ranking.csv` from the win matrices there, whole or not at all; returns its path.

    Its columns are prompt, rank (1 is the best of its group; equal win rates share one), win_rate, file and
    group (the id). A candidate without a win rate has no line.

    Args:
        groups: the groups that were labelled into `out`, in the same order.
        out: the folder that `label` filled.
        files: the files of each candidate of a group.
    """
    path = Path(out) / FILE
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for group, entry in zip(groups, read_matrices(out), strict=True):
            rates, named = entry.matrix.win_rate(on_missing="drop"), files(group)
            for n, rank in ranks(entry.matrix).items():
                for name in named[n]:
                    table.writerow([group.prompt, rank, f"{rates[n]:.4f}", name, group.id])
    partial.replace(path)
    return path
