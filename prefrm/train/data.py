"""Batches of examples as a judge reads them. Shapes: N comparisons."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import GroupInput, ImageInput, JudgeProcessor
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, encode_png
from prefrm.train.examples import Example

__all__ = ["ComparisonCollator", "blank_batch"]

logger = logging.getLogger(__name__)


class ComparisonCollator:
    """Turns examples into a batch: a `JudgeBatch`, targets p_N and weights weight_N, one for each comparison.

    A judge that reads whole groups and has a presentation order is shown each comparison in both; one that
    reads pairs is shown an example as it is, and the dataset has its other order, too.

    A comparison whose image or prompt cannot be read is left out of its batch, and its record's id is
    logged and kept in `left_out` with the reason. The batch is None if that is all of them.

    Attributes:
        left_out: why a comparison was left out, by its record's id; for the first of a record's comparisons.
        read: how many comparisons were put into batches.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0
        self._processor = processor
        self._limits = limits
        self._both_orders = processor.spec.reads_groups and processor.spec.is_pairwise

    def __call__(self, rows: Sequence[Example]) -> dict[str, Any]:
        images: dict[bytes, ImageInput] = {}
        groups: list[GroupInput] = []
        p: list[float] = []
        weight: list[float] = []
        for row in rows:
            shown = self._shown(row, images)
            try:
                group = self._group(row, shown, images)
            except RecordError as error:
                self._leave_out(row["id"], error)
                continue
            if group is not None:
                groups.append(group)
                p += [target for _, _, target, _ in shown]
                weight += [share for *_, share in shown]
        self.read += len(p)
        return {
            "batch": self._processor.collate_groups(groups) if groups else None,
            "p_N": torch.tensor(p, dtype=torch.float32),
            "weight_N": torch.tensor(weight, dtype=torch.float32),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the batches so far, as JSON."""
        return {"left_out": self.left_out, "read": self.read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.left_out, self.read = dict(state["left_out"]), int(state["read"])

    def _shown(self, row: Example, images: dict[bytes, ImageInput]) -> list[tuple[int, int, float, float]]:
        """The comparisons whose images can be read: first, second, p and weight of each, as shown."""
        shown = []
        for first, second, p, weight in zip(
            row["first"], row["second"], row["p"], row["weight"], strict=True
        ):
            try:
                for place in (first, second):
                    self._prepare(row["images"][place], images)
            except MediaError as error:
                self._leave_out(row["id"], error)
                continue
            shown.append((first, second, p, weight))
        if self._both_orders:
            shown += [(second, first, 1.0 - p, weight) for first, second, p, weight in shown]
        return shown

    def _group(
        self,
        row: Example,
        shown: Sequence[tuple[int, int, float, float]],
        images: dict[bytes, ImageInput],
    ) -> GroupInput | None:
        if not shown:
            return None
        places = sorted({place for first, second, *_ in shown for place in (first, second)})
        return self._processor.prepare_group(
            row["prompt"],
            [images[row["images"][place]] for place in places],
            [(places.index(first), places.index(second)) for first, second, *_ in shown],
        )

    def _prepare(self, data: bytes, images: dict[bytes, ImageInput]) -> None:
        if data not in images:
            images[data] = self._processor.prepare_image(decode(data, self._limits))

    def _leave_out(self, record: str, error: Exception) -> None:
        if record not in self.left_out:
            logger.warning("a comparison of record %r is left out: %s", record, error)
            self.left_out[record] = str(error)


def blank_batch(processor: JudgeProcessor) -> Any:
    """A batch that says nothing of any data: one comparison of a black image with itself."""
    image = encode_png(Image.new("RGB", (64, 64)))
    example = Example(id="", prompt="", images=[image, image], first=[0], second=[1], p=[0.5], weight=[1.0])
    return ComparisonCollator(processor)([example])["batch"]
