"""Batches of examples as a judge reads them. Shapes: B comparisons."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import ImageInput, JudgeProcessor, PairInput
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, encode_png
from prefrm.train.examples import Example

__all__ = ["ComparisonCollator", "blank_batch"]

logger = logging.getLogger(__name__)


class ComparisonCollator:
    """Turns examples into a batch: a `JudgeBatch`, targets p_B and weights weight_B, one for each comparison.

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

    def __call__(self, rows: Sequence[Example]) -> dict[str, Any]:
        images: dict[bytes, ImageInput] = {}
        pairs, p, weight = [], [], []
        for row in rows:
            for n in range(len(row["p"])):
                try:
                    pairs.append(self._pair(row, n, images))
                except (MediaError, RecordError) as error:
                    self._leave_out(row["id"], error)
                    continue
                p.append(row["p"][n])
                weight.append(row["weight"][n])
        self.read += len(pairs)
        return {
            "batch": self._processor.collate(pairs) if pairs else None,
            "p_B": torch.tensor(p, dtype=torch.float32),
            "weight_B": torch.tensor(weight, dtype=torch.float32),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the batches so far, as JSON."""
        return {"left_out": self.left_out, "read": self.read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.left_out, self.read = dict(state["left_out"]), int(state["read"])

    def _pair(self, row: Example, n: int, images: dict[bytes, ImageInput]) -> PairInput:
        first, second = row["images"][row["first"][n]], row["images"][row["second"][n]]
        for data in (first, second):
            if data not in images:
                images[data] = self._processor.prepare_image(decode(data, self._limits))
        return self._processor.prepare_pair(row["prompt"], images[first], images[second])

    def _leave_out(self, record: str, error: Exception) -> None:
        if record not in self.left_out:
            logger.warning("a comparison of record %r is left out: %s", record, error)
            self.left_out[record] = str(error)


def blank_batch(processor: JudgeProcessor) -> Any:
    """A batch that says nothing of any data: one comparison of a black image with itself."""
    image = encode_png(Image.new("RGB", (64, 64)))
    example = Example(id="", prompt="", images=[image], first=[0], second=[0], p=[0.5], weight=[1.0])
    return ComparisonCollator(processor)([example])["batch"]
