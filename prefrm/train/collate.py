"""Batches of preference groups as a judge reads them. Shapes: N comparisons, as they are shown."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import GroupInput, ImageInput, JudgeProcessor
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, digest
from prefrm.records import Comparison, PreferenceGroup

__all__ = ["Coverage", "GroupCollator", "blank_batch"]

logger = logging.getLogger(__name__)

# Of an image's digest: enough to tell it from all others.
DIGITS = 12


class GroupCollator:
    """Turns groups into a batch: a `JudgeBatch`, targets p_N and weights weight_N, one for each comparison.

    A pairwise judge is shown each comparison in both presentation orders, any other judge once. Only the
    candidates that are compared are decoded.

    A comparison that cannot be read is left out of its batch, and the others of its group are not; `left_out`
    of the batch has the id of its record, and which of its images cannot be read and why. The `JudgeBatch` is
    None if nothing is left. Equal groups give equal batches: there is no state, so that any process may
    collate any batch.

    Args:
        processor: of the judge.
        limits: of an encoded image.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._processor = processor
        self._limits = limits

    def __call__(self, groups: Sequence[PreferenceGroup]) -> dict[str, Any]:
        read: list[GroupInput] = []
        shown: list[Comparison] = []
        left_out: list[tuple[str, str]] = []
        prepared: dict[bytes, ImageInput] = {}
        for group in groups:
            images = self._images(group, prepared, left_out)
            compared = self._shown([c for c in group.comparisons if {c.i, c.j} <= images.keys()])
            if not compared:
                continue
            try:
                read.append(self._read(group, images, compared))
            except RecordError as error:
                left_out.append((group.id, f"its prompt and images: {error}"))
            else:
                shown += compared
        return {
            "batch": self._processor.collate_groups(read) if read else None,
            "p_N": torch.tensor([c.p for c in shown], dtype=torch.float32),
            "weight_N": torch.tensor([c.weight for c in shown], dtype=torch.float32),
            "left_out": left_out,
        }

    def _images(
        self, group: PreferenceGroup, prepared: dict[bytes, ImageInput], left_out: list[tuple[str, str]]
    ) -> dict[int, ImageInput]:
        """Compared candidates that can be decoded, by place; `prepared` keeps those of the whole batch."""
        images = {}
        for place in sorted({place for c in group.comparisons for place in (c.i, c.j)}):
            data = group.images[place]
            assert data is not None
            try:
                if data not in prepared:
                    prepared[data] = self._processor.prepare_image(decode(data, self._limits))
                images[place] = prepared[data]
            except MediaError as error:
                left_out.append((group.id, f"{_named(group, [place])}: {error}"))
        return images

    def _shown(self, comparisons: list[Comparison]) -> list[Comparison]:
        pairwise = self._processor.spec.is_pairwise
        return [*comparisons, *(c.swapped() for c in comparisons)] if pairwise else comparisons

    def _read(
        self, group: PreferenceGroup, images: Mapping[int, ImageInput], compared: Sequence[Comparison]
    ) -> GroupInput:
        places = sorted(images)
        return self._processor.prepare_group(
            group.prompt,
            [images[place] for place in places],
            [(places.index(c.i), places.index(c.j)) for c in compared],
        )


def _named(group: PreferenceGroup, places: Sequence[int]) -> str:
    """Images of a group by their places, counted from 1, and their digests."""
    names = (
        f"image {place + 1} of {len(group.images)}, sha256 {digest(group.images[place] or b'')[:DIGITS]}"
        for place in places
    )
    return " with ".join(names)


def blank_batch(processor: JudgeProcessor) -> Any:
    """A batch that depends on no data: one comparison of a black image with itself."""
    image = processor.prepare_image(Image.new("RGB", (64, 64)))
    return processor.collate_groups([processor.prepare_group("", [image, image], [(0, 1)])])


class Coverage:
    """Counts the comparisons that were read, and keeps which were left out and why.

    Of each batch of `GroupCollator` as a step reads it, not as it is collated, which workers do ahead of the
    step: a checkpoint must not know of later batches.

    Attributes:
        left_out: which images could not be read or compared, and why, by their record's id.
        read: how many comparisons were read, as they are shown.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0

    def add(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take `left_out` out of the batch and log what is new of it; returns the rest."""
        rest = dict(batch)
        for record, reason in rest.pop("left_out"):
            before = self.left_out.get(record)
            if before is None or reason not in before:
                logger.warning("of record %r is left out what compares %s", record, reason)
                self.left_out[record] = reason if before is None else f"{before}; {reason}"
        self.read += len(rest["p_N"])
        return rest

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the batches so far, as JSON."""
        return {"left_out": self.left_out, "read": self.read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.left_out, self.read = dict(state["left_out"]), int(state["read"])
