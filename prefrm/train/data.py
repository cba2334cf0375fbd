"""Comparisons as a `datasets.Dataset`, and batches of them as a judge reads them.

A row of the dataset is one comparison in one presentation order, so a shuffled epoch shows both
orders of every comparison. Images stay in a memory-mapped table, once each.

Shapes: B comparisons.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from prefrm.errors import DatasetError, MediaError, RecordError
from prefrm.judge import ImageInput, JudgeProcessor, SequenceInput
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.records import PreferenceGroup, read_groups

__all__ = ["ComparisonCollator", "load_comparisons"]

logger = logging.getLogger(__name__)


def load_comparisons(folder: Path, split: str, *, cache: Path) -> Dataset:
    """Every comparison of a split in both presentation orders.

    Args:
        folder: a dataset folder.
        split: one of its splits.
        cache: where the memory-mapped table is kept; the caller deletes it.

    Returns:
        Rows of id, prompt, first and second (encoded images, in the order shown), p (that the image
        shown first is preferred) and weight.

    Raises:
        DatasetError: the split is absent, unreadable, or compares nothing.
        RecordError: a record breaks its own rules.
    """
    index = list(_index(read_groups(folder, split)))
    if not index:
        raise DatasetError(f"{folder}/{split}.parquet holds no comparison, so there is nothing to learn from")
    groups = Dataset.from_parquet(str(folder / f"{split}.parquet"), cache_dir=str(cache))

    def fetch(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        records = groups[rows["record"]]
        images = [[image["bytes"] for image in images] for images in records["images"]]
        return {
            "id": records["id"],
            "prompt": records["prompt"],
            "first": [images[n][i] for n, i in enumerate(rows["first"])],
            "second": [images[n][i] for n, i in enumerate(rows["second"])],
            "p": rows["p"],
            "weight": rows["weight"],
        }

    return Dataset.from_list(index).with_transform(fetch)


def _index(groups: Iterator[PreferenceGroup]) -> Iterator[dict[str, float]]:
    for record, group in enumerate(groups):
        for comparison in group.comparisons:
            for shown in (comparison, comparison.swapped()):
                yield {
                    "record": record,
                    "first": shown.i,
                    "second": shown.j,
                    "p": shown.p,
                    "weight": shown.weight,
                }


class ComparisonCollator:
    """Turns rows of `load_comparisons` into a batch: a `JudgeBatch`, targets p_B and weights weight_B.

    A row whose image or prompt cannot be read is left out of its batch, and its record's id is logged
    and kept in `left_out` with the reason. The batch is None if that is all of them.

    Attributes:
        left_out: why a row was left out, by its record's id; for the first of a record's rows.
        read: how many rows were put into batches.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0
        self._processor = processor
        self._limits = limits

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        images: dict[bytes, ImageInput] = {}
        pairs, p, weight = [], [], []
        for row in rows:
            try:
                pairs.append(self._pair(row, images))
            except (MediaError, RecordError) as error:
                self._leave_out(row["id"], error)
                continue
            p.append(row["p"])
            weight.append(row["weight"])
        self.read += len(pairs)
        return {
            "batch": self._processor.collate(pairs) if pairs else None,
            "p_B": torch.tensor(p, dtype=torch.float32),
            "weight_B": torch.tensor(weight, dtype=torch.float32),
        }

    def _pair(self, row: Mapping[str, Any], images: dict[bytes, ImageInput]) -> SequenceInput:
        for data in (row["first"], row["second"]):
            if data not in images:
                images[data] = self._processor.prepare_image(decode(data, self._limits))
        return self._processor.prepare_pair(row["prompt"], images[row["first"]], images[row["second"]])

    def _leave_out(self, record: str, error: Exception) -> None:
        if record not in self.left_out:
            logger.warning("a comparison of record %r is left out: %s", record, error)
            self.left_out[record] = str(error)
