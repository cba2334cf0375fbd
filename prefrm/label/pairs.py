"""Chosen/rejected pairs from win matrices, written as the tables of `prefrm.label.tables`."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prefrm.errors import ConfigError, DatasetError
from prefrm.label.shards import (
    LabelledGroup,
    Summary,
    check_shard,
    labelled_criteria,
    labelled_shards,
    read_metadata,
    read_shard,
)
from prefrm.label.tables import DIFFUSION_DPO, TRL_DPO, Add, Table, diffusion_dpo_row, trl_dpo_row, writing
from prefrm.records import PreferenceGroup
from prefrm.rewards import PreferencePair, criterion_name, dpo_pairs, ranking
from prefrm.winmatrix import WinMatrix

__all__ = ["PairSummary", "Select", "write_pairs"]

logger = logging.getLogger(__name__)

Select = Literal["best_worst", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """What became of the pairs of a dataset.

    Attributes:
        groups: number of groups.
        pairs: those that were kept; of images, each is a row of the table for image policies.
        text_pairs: rows of the table for text policies, one for each pair whose candidates have texts.
        unjudged: pairs left out because they were not judged, nor inferred where that is enough.
        below_margin: pairs left out because neither candidate is preferred by more than the margin.
    """

    groups: int = 0
    pairs: int = 0
    text_pairs: int = 0
    unjudged: int = 0
    below_margin: int = 0

    def __add__(self, other: "PairSummary") -> "PairSummary":
        mine, theirs = asdict(self), asdict(other)
        return PairSummary(**{name: mine[name] + theirs[name] for name in mine})


def write_pairs(
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    *,
    select: Select = "best_worst",
    min_margin: float = 0.0,
    conversational: bool = False,
) -> PairSummary:
    """Write the tables of pairs into `out` from the win matrices there, each whole or not at all.

    The table for text policies is written if a group has texts, that for image policies if one has images.
    Pairs by different criteria in one table are warned of: a policy would be trained on all of them. So are
    context images that the table for image policies has no place for, such as the source of an edit.

    Args:
        groups: the groups that were labelled into `out`, in the same order; their images and texts.
        out: the folder that `label` filled.
        select: "best_worst" takes each group's highest against its lowest win rate, also if the pair was
            inferred, since their win rates are; "all" every pair that was judged.
        min_margin: in [0, 1); only pairs with a wider margin are written.
        conversational: write prompt and texts as messages, for a text policy that has a chat template. They
            are written so in any case if a group has context images.

    Raises:
        DatasetError: nothing was labelled into `out`, or it was labelled from other groups.
        ConfigError: `select` or `min_margin` is not as described.
    """
    if select not in get_args(Select):
        raise ConfigError(f"select must be one of {', '.join(get_args(Select))}; received {select!r}")
    folder = Path(out)
    total, found = PairSummary(), Summary()
    for path in labelled_shards(folder):
        found += read_metadata(path).summary
    conversational = conversational or found.with_context > 0
    criteria, mixed, without_source = labelled_criteria(folder), set[str](), 0
    with ExitStack() as tables:

        def opened(table: Table, wanted: int, **options: bool) -> Add:
            if not wanted:
                return lambda row: None
            return tables.enter_context(writing(table, folder, criteria=criteria, **options))

        add_images = opened(DIFFUSION_DPO, found.groups - found.without_images)
        add_texts = opened(
            TRL_DPO, found.with_texts, conversational=conversational, images=found.with_context > 0
        )
        for group, labelled in _matched(groups, folder):
            kept, summary = _select(labelled.matrix, select, min_margin)
            rows = [trl_dpo_row(group, pair, labelled, conversational=conversational) for pair in kept]
            if kept:
                mixed.add(criterion_name(labelled.criterion))
            told = [row for row in rows if row is not None]
            if group.group().kind == "image":
                without_source += bool(kept and group.context)
                for pair in kept:
                    add_images(diffusion_dpo_row(group, pair, labelled))
            for row in told:
                add_texts(row)
            total += summary + PairSummary(groups=1, pairs=len(kept), text_pairs=len(told))
    if len(mixed) > 1:
        logger.warning(
            "the tables mix pairs by %d criteria (%s); their column `criterion` tells them apart",
            len(mixed),
            ", ".join(sorted(mixed)),
        )
    if without_source:
        logger.warning(
            "%s has no place for context images, and %d groups have some; `id` finds them in the dataset",
            DIFFUSION_DPO.path(folder),
            without_source,
        )
    return total


def _matched(
    groups: Iterable[PreferenceGroup], folder: Path
) -> Iterator[tuple[PreferenceGroup, LabelledGroup]]:
    """Each group beside its labels, after its shard's fingerprint was compared."""
    stream = iter(groups)
    for path in labelled_shards(folder):
        part = list(islice(stream, read_metadata(path).summary.groups))
        check_shard(path, part)
        yield from zip(part, read_shard(path), strict=True)
    if (extra := next(stream, None)) is not None:
        raise DatasetError(
            f"{folder} has no labels of the group {extra.id!r} and the rest; label the whole dataset first"
        )


def _select(matrix: WinMatrix, select: Select, min_margin: float) -> tuple[list[PreferencePair], PairSummary]:
    """The pairs to write, widest margin first, and what was left out."""
    wide = dpo_pairs(matrix, min_margin=min_margin, inferred=select == "best_worst", on_missing="drop")
    if select == "all":
        unjudged = int(np.triu(~matrix.valid, 1).sum())
        asked = matrix.size * (matrix.size - 1) // 2
    else:
        order = ranking(matrix)
        ends = (order[0], order[-1]) if len(order) > 1 else (0, 0)
        wide = [pair for pair in wide if (pair.chosen, pair.rejected) == ends]
        unjudged, asked = int(ends[0] == ends[1] or not matrix.known[ends]), 1
    return wide, PairSummary(unjudged=unjudged, below_margin=asked - unjudged - len(wide))
