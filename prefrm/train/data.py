"""Batches of examples as a judge reads them. Shapes: N comparisons."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import GroupInput, ImageInput, JudgeProcessor
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, digest, encode_png
from prefrm.train.examples import Example

__all__ = ["ComparisonCollator", "blank_batch"]

Shown = tuple[int, int, float, float]
"""A comparison as shown: the places of its first and second image, p and weight."""
# Of an image's digest: enough to tell it from all others, where a place alone does not say which it is.
DIGITS = 12


class ComparisonCollator:
    """Turns examples into a batch: a `JudgeBatch`, targets p_N and weights weight_N, one for each comparison.

    A judge that reads whole groups and has a presentation order is shown each comparison in both; one that
    reads pairs is shown an example as it is, and the dataset has its other order, too.

    A comparison whose image or prompt cannot be read is left out of its batch, and the others of its record
    are not; `left_out` of the batch has a pair for each such image: the id of its record, and which image of
    it that was and why. The `JudgeBatch` is None if nothing is left. Equal examples give equal batches: it
    keeps nothing, so that any process may collate any batch.

    Args:
        processor: of the judge.
        limits: what an encoded image may be.
        group_tokens: as in `OptimConfig`; None reads each group as one sequence.
    """

    def __init__(
        self,
        processor: JudgeProcessor,
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        group_tokens: int | None = None,
    ) -> None:
        self._processor = processor
        self._limits = limits
        self._group_tokens = group_tokens

    def __call__(self, rows: Sequence[Example]) -> dict[str, Any]:
        reader = _Reader(self._processor, self._limits, self._group_tokens)
        groups: list[GroupInput] = []
        shown: list[Shown] = []
        for row in rows:
            group, kept = reader.read(row)
            if group is not None:
                groups.append(group)
                shown += kept
        return {
            "batch": self._processor.collate_groups(groups) if groups else None,
            "p_N": torch.tensor([p for _, _, p, _ in shown], dtype=torch.float32),
            "weight_N": torch.tensor([weight for *_, weight in shown], dtype=torch.float32),
            "left_out": reader.left_out,
        }


class _Reader:
    """Reads the examples of one batch, which prepares each image once.

    Attributes:
        left_out: record and reason for each image, or pair of images, that could not be read.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits, group_tokens: int | None) -> None:
        self.left_out: list[tuple[str, str]] = []
        self._images: dict[bytes, ImageInput] = {}
        self._processor = processor
        self._limits = limits
        self._group_tokens = group_tokens
        self._both_orders = processor.spec.reads_groups and processor.spec.is_pairwise

    def read(self, row: Example) -> tuple[GroupInput | None, list[Shown]]:
        """The comparisons of a row that can be read, and what the judge reads of them; None if none can."""
        shown = self._shown(row)
        try:
            return self._group(row, shown), shown
        except RecordError:
            shown = self._readable(row, shown)
            return self._group(row, shown), shown

    def _shown(self, row: Example) -> list[Shown]:
        """The comparisons whose images can be decoded."""
        shown = []
        for first, second, p, weight in zip(
            row["first"], row["second"], row["p"], row["weight"], strict=True
        ):
            # Both are tried, so that each is named.
            if all([self._can_be_decoded(row, place) for place in (first, second)]):
                shown.append((first, second, p, weight))
        if self._both_orders:
            shown += [(second, first, 1.0 - p, weight) for first, second, p, weight in shown]
        return shown

    def _group(self, row: Example, shown: Sequence[Shown]) -> GroupInput | None:
        if not shown:
            return None
        places = sorted({place for first, second, *_ in shown for place in (first, second)})
        return self._processor.prepare_group(
            row["prompt"],
            [self._images[row["images"][place]] for place in places],
            [(places.index(first), places.index(second)) for first, second, *_ in shown],
            self._group_tokens,
        )

    def _can_be_decoded(self, row: Example, place: int) -> bool:
        """Prepare the image at that place; False, and `left_out` names it, if it cannot be decoded."""
        data = row["images"][place]
        try:
            if data not in self._images:
                self._images[data] = self._processor.prepare_image(decode(data, self._limits))
        except MediaError as error:
            self._leave_out(row, [place], error)
            return False
        return True

    def _readable(self, row: Example, shown: Sequence[Shown]) -> list[Shown]:
        """Those comparisons that can be read by themselves; `left_out` names the images of the others."""
        places = sorted({place for first, second, *_ in shown for place in (first, second)})
        refusals = {place: self._refusal(row, (place, place)) for place in places}
        refused = {place: error for place, error in refusals.items() if error is not None}
        if len(refused) == len(places):
            self._leave_out(row, places, refused[places[0]])
            return []
        kept = []
        for one in shown:
            if (error := self._refusal(row, one[:2])) is None:
                kept.append(one)
                continue
            blamed = [place for place in one[:2] if place in refused]
            for place in blamed:
                self._leave_out(row, [place], refused[place])
            if not blamed:
                self._leave_out(row, one[:2], error)
        return kept

    def _refusal(self, row: Example, pair: tuple[int, int]) -> RecordError | None:
        try:
            self._group(row, [(*pair, 0.5, 1.0)])
        except RecordError as error:
            return error
        return None

    def _leave_out(self, row: Example, places: Sequence[int], error: Exception) -> None:
        self.left_out.append((row["id"], f"{_named(row, places)}: {error}"))


def _named(row: Example, places: Sequence[int]) -> str:
    """Images of an example by their digests; and by their places, which of two are the order shown."""
    count = len(row["images"])
    if len(places) == count > 1:
        return "its images"
    names = [f"sha256 {digest(row['images'][place])[:DIGITS]}" for place in places]
    if count > 2:
        names = [f"{place + 1} of {count}, {name}" for place, name in zip(places, names, strict=True)]
    return " with ".join(f"image {name}" for name in names)


def blank_batch(processor: JudgeProcessor) -> Any:
    """A batch that says nothing of any data: one comparison of a black image with itself."""
    image = encode_png(Image.new("RGB", (64, 64)))
    example = Example(id="", prompt="", images=[image, image], first=[0], second=[1], p=[0.5], weight=[1.0])
    return ComparisonCollator(processor)([example])["batch"]
