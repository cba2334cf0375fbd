"""The ranking of each labelled group as a table for people and spreadsheets: one line for each file."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prefrm.files import write_file_whole
from prefrm.label.shards import labelled_criteria, read_matrices
from prefrm.records import PreferenceGroup
from prefrm.rewards import criterion_name, ranks

__all__ = ["write_ranking"]

FILE = "ranking.csv"
COLUMNS = ("prompt", "rank", "win_rate", "file", "group", "criterion")


def write_ranking(
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    files: Callable[[PreferenceGroup], Sequence[Sequence[str]]],
) -> Path:
    """Write `out/ranking.csv` from the win matrices there, whole or not at all; returns its path.

    Its columns are prompt, rank (1 is the best of its group; equal win rates share one), win_rate, file and
    group (the id), criterion, and a win rate for each of several criteria. A candidate without a win rate has
    no line.

    Args:
        groups: the groups that were labelled into `out`, in the same order.
        out: the folder that `label` filled.
        files: the files of each candidate of a group.
    """
    path = Path(out) / FILE
    with write_file_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        criteria = labelled_criteria(Path(out))
        table.writerow([*COLUMNS, *(f"win_rate {criterion_name(name)}" for name in criteria)])
        for group, entry in zip(groups, read_matrices(out), strict=True):
            parts = [entry.criteria[name].win_rate(on_missing="drop") for name in criteria]
            rates, named = entry.matrix.win_rate(on_missing="drop"), files(group)
            for n, rank in ranks(entry.matrix).items():
                for name in named[n]:
                    own = [f"{part[n]:.4f}" for part in parts]
                    line = (group.prompt, rank, f"{rates[n]:.4f}", name, group.id, entry.criterion)
                    table.writerow([*line, *own])
    return path
