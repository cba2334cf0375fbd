"""Batches of examples as a judge reads them. Shapes: N comparisons."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import GroupInput, ImageInput, JudgeProcessor
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, digest, encode_png
from prefrm.train.examples import Example

__all__ = ["ComparisonCollator", "blank_batch"]

logger = logging.getLogger(__name__)

Shown = tuple[int, int, float, float]
"""A comparison as shown: the places of its first and second image, p and weight."""
# Of an image's digest: enough to tell it from all others, where a place alone does not say which it is.
DIGITS = 12


class ComparisonCollator:
    """Turns examples into a batch: a `JudgeBatch`, targets p_N and weights weight_N, one for each comparison.

    A judge that reads whole groups and has a presentation order is shown each comparison in both; one that
    reads pairs is shown an example as it is, and the dataset has its other order, too.

    A comparison whose image or prompt cannot be read is left out of its batch, and the others of its record
    are not; which image of which record that was, and why, is logged and kept in `left_out`. The batch is
    None if nothing is left.

    Args:
        processor: of the judge.
        limits: what an encoded image may be.
        group_tokens: as in `OptimConfig`; None reads each group as one sequence.

    Attributes:
        left_out: which images could not be read or compared, and why, by their record's id.
        read: how many comparisons were put into batches.
    """

    def __init__(
        self,
        processor: JudgeProcessor,
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        group_tokens: int | None = None,
    ) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0
        self._processor = processor
        self._limits = limits
        self._group_tokens = group_tokens
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
            except RecordError:
                shown = self._readable(row, shown, images)
                group = self._group(row, shown, images)
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

    def _shown(self, row: Example, images: dict[bytes, ImageInput]) -> list[Shown]:
        """The comparisons whose images can be decoded."""
        shown = []
        for first, second, p, weight in zip(
            row["first"], row["second"], row["p"], row["weight"], strict=True
        ):
            # Both are tried, so that each is named.
            if all([self._can_be_decoded(row, place, images) for place in (first, second)]):
                shown.append((first, second, p, weight))
        if self._both_orders:
            shown += [(second, first, 1.0 - p, weight) for first, second, p, weight in shown]
        return shown

    def _group(
        self,
        row: Example,
        shown: Sequence[Shown],
        images: dict[bytes, ImageInput],
    ) -> GroupInput | None:
        if not shown:
            return None
        places = sorted({place for first, second, *_ in shown for place in (first, second)})
        return self._processor.prepare_group(
            row["prompt"],
            [images[row["images"][place]] for place in places],
            [(places.index(first), places.index(second)) for first, second, *_ in shown],
            self._group_tokens,
        )

    def _can_be_decoded(self, row: Example, place: int, images: dict[bytes, ImageInput]) -> bool:
        """Whether the image at that place can be prepared, which it is; says so where it cannot."""
        data = row["images"][place]
        try:
            if data not in images:
                images[data] = self._processor.prepare_image(decode(data, self._limits))
        except MediaError as error:
            self._leave_out(row, [place], error)
            return False
        return True

    def _readable(self, row: Example, shown: Sequence[Shown], images: dict[bytes, ImageInput]) -> list[Shown]:
        """Those comparisons that can be read by themselves; says which images cost the others."""
        places = sorted({place for first, second, *_ in shown for place in (first, second)})
        refusals = {place: self._refusal(row, (place, place), images) for place in places}
        refused = {place: error for place, error in refusals.items() if error is not None}
        if len(refused) == len(places):
            self._leave_out(row, places, refused[places[0]])
            return []
        kept = []
        for one in shown:
            if (error := self._refusal(row, one[:2], images)) is None:
                kept.append(one)
                continue
            blamed = [place for place in one[:2] if place in refused]
            for place in blamed:
                self._leave_out(row, [place], refused[place])
            if not blamed:
                self._leave_out(row, one[:2], error)
        return kept

    def _refusal(
        self, row: Example, pair: tuple[int, int], images: dict[bytes, ImageInput]
    ) -> RecordError | None:
        try:
            self._group(row, [(*pair, 0.5, 1.0)], images)
        except RecordError as error:
            return error
        return None

    def _leave_out(self, row: Example, places: Sequence[int], error: Exception) -> None:
        """Log and keep it, once for each reason."""
        reason = f"{_named(row, places)}: {error}"
        before = self.left_out.get(row["id"])
        if before is None or reason not in before:
            logger.warning("of record %r is left out what compares %s", row["id"], reason)
            self.left_out[row["id"]] = reason if before is None else f"{before}; {reason}"


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
