"""Batches of preference groups as a judge reads them. Shapes: N comparisons, as they are shown."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image

from prefrm.errors import MediaError, RecordError
from prefrm.judge import Content, ContentReader, ImageInput, JudgeBatch, JudgeProcessor, Pair, Tree
from prefrm.media import DEFAULT_LIMITS, ImageLimits, digest
from prefrm.records import Comparison, PreferenceGroup

__all__ = ["Coverage", "GroupCollator", "blank_batch"]

logger = logging.getLogger(__name__)

# Of a candidate's digest, in messages.
DIGITS = 12
Read = Callable[[bytes | str, str], Content]
"""From a candidate or a context image and its kind to its content."""


class GroupCollator:
    """Turns groups into a batch: a `JudgeBatch`, targets p_N and weights weight_N, one for each comparison.

    A pairwise judge is shown each comparison in both presentation orders, any other judge once. Only the
    candidates that are compared are decoded.

    A comparison that cannot be read is left out of its batch, and the others of its group are not; `left_out`
    of the batch has the id of its record, and which of its candidates cannot be read and why. The
    `JudgeBatch` is None if nothing is left. Equal groups give equal batches: there is no state, so that any
    process may collate any batch.

    Args:
        processor: of the judge.
        limits: of an encoded image or video.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._processor = processor
        self._read = ContentReader(processor, limits)

    def __call__(self, groups: Sequence[PreferenceGroup]) -> dict[str, Any]:
        trees: list[tuple[Tree, list[Pair]]] = []
        shown: list[Comparison] = []
        left_out: list[tuple[str, str]] = []
        # Each image, video or text of the batch once.
        read = cache(self._read)
        for group in groups:
            contents, reasons = self._contents(group, read)
            try:
                context = _context(group, read)
                tree = self._processor.tree(group.prompt, contents, context, group.criterion)
            except RecordError as error:
                left_out.append((group.id, str(error)))
                continue
            compared = self._shown([c for c in group.comparisons if {c.i, c.j} <= contents.keys()])
            if pairs := tree.readable((c.i, c.j) for c in compared):
                trees.append((tree, pairs))
            shown += [c for c in compared if (c.i, c.j) not in tree.refused]
            reasons |= _refusals(tree)
            left_out += [(group.id, f"{_named(group, place)}: {why}") for place, why in reasons.items()]
        return {
            "batch": self._processor.collate(trees) if trees else None,
            "p_N": torch.tensor([c.p for c in shown], dtype=torch.float32),
            "weight_N": torch.tensor([c.weight for c in shown], dtype=torch.float32),
            "left_out": left_out,
        }

    def _contents(self, group: PreferenceGroup, read: Read) -> tuple[dict[Hashable, Content], dict[int, str]]:
        """The compared candidates by place, and why others cannot be read."""
        contents: dict[Hashable, Content] = {}
        reasons: dict[int, str] = {}
        for place in sorted({place for c in group.comparisons for place in (c.i, c.j)}):
            data = group.candidates[place]
            assert data is not None
            try:
                contents[place] = read(data, self._processor.spec.kind)
            except (MediaError, RecordError) as error:
                reasons[place] = str(error)
        return contents, reasons

    def _shown(self, comparisons: list[Comparison]) -> list[Comparison]:
        pairwise = self._processor.spec.is_pairwise
        return [*comparisons, *(c.swapped() for c in comparisons)] if pairwise else comparisons


def _context(group: PreferenceGroup, read: Read) -> list[ImageInput]:
    """The context images. Raises `RecordError` if one cannot be read."""
    try:
        contents = [read(data, "image") for data in group.context]
    except MediaError as error:
        raise RecordError(f"a context image cannot be read: {error}") from error
    return [part for content in contents for part in content if isinstance(part, ImageInput)]


def _refusals(tree: Tree) -> dict[int, str]:
    """Why the model cannot read candidates, by place: of each refused pair, one is too long by itself."""
    places = sorted({place for pair in tree.refused for place in pair})
    return {n: tree.refused[n, n] for n in places if not tree.readable([(n, n)])}


def _named(group: PreferenceGroup, place: int) -> str:
    """A candidate by its place, counted from 1, and its digest."""
    shown = digest(group.candidates[place] or b"")[:DIGITS]
    return f"{group.group().kind} {place + 1} of {len(group.candidates)}, sha256 {shown}"


def blank_batch(processor: JudgeProcessor) -> JudgeBatch:
    """A batch that depends on no data: one comparison of a black image, or what is made of it,
    with itself."""
    tree = processor.trial_tree("", [Image.new("RGB", (64, 64))])
    return processor.collate([(tree, [(0, 0)])])


class Coverage:
    """Counts the comparisons that were read, and keeps which were left out and why.

    Of each batch of `GroupCollator` as a step reads it, not as it is collated, which workers do ahead of the
    step: a checkpoint must not count later batches.

    Attributes:
        left_out: which candidates could not be read or compared, and why, by their record's id.
        read: how many comparisons were read, as they are shown.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0

    def add(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count a batch, and log new reasons of its `left_out`; returns the batch without it."""
        rest = dict(batch)
        for record, reason in rest.pop("left_out"):
            before = self.left_out.get(record)
            if before is None or reason not in before:
                logger.warning("of record %r is left out: %s", record, reason)
                self.left_out[record] = reason if before is None else f"{before}; {reason}"
        self.read += len(rest["p_N"])
        return rest

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON, for a checkpoint."""
        return {"left_out": self.left_out, "read": self.read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.left_out, self.read = dict(state["left_out"]), int(state["read"])
