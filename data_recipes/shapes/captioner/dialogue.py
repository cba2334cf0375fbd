"""Questions about images and videos, their answers, and the tensors a Qwen2.5-VL is trained on.

A question mixes text, images and videos. Each text is encoded by itself, as a judge's prompt and candidates
are. Only the answers are learnt. Knows nothing of what the images show.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from PIL import Image

from data_recipes.shapes.captioner.tokenizer import IM_END, IMAGE_PAD, VIDEO_PAD

__all__ = ["IGNORED", "Batch", "Collator", "Frames", "Marked", "Part", "Taught", "Turn"]

# B turns, T tokens, N patches, P values of a patch, M images or videos
IGNORED = -100

Batch = dict[str, torch.Tensor]
Frames = tuple[Image.Image, ...]
"""A video: an even number of frames of one size."""


class Taught(str):
    """A text of a question that is learnt as an answer is; not the first part of a branch."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A part of a question with words that a model is to know at its tokens, where later ones look for them.

    They are learnt as if each could follow there, and never written.

    Attributes:
        part: a text or an image.
        marks: the words of a text's last token; those of each token of an image, row by row, and perhaps of
            the one that ends it.
    """

    part: str | Image.Image
    marks: tuple[tuple[str, ...], ...]


Part: TypeAlias = str | Image.Image | Frames | Marked
_Plain: TypeAlias = list[int] | str | Image.Image | Frames
_Part: TypeAlias = _Plain | Marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question of texts, images and videos, in order, and its answer.

    Attributes:
        branches: questions that go on from this one, none of which sees another; this one has no answer then.
        slot: 0 or 1 of a question that is a judge's suffix for a candidate as first or second: the answer
            sees the first turn and this one, and nothing between them, as in a late judge's tree, and both
            stand where that tree has them.
    """

    question: tuple[Part, ...]
    answer: str = ""
    branches: "tuple[Turn, ...]" = ()
    slot: int | None = None


@dataclass(slots=True)
class _Row:
    """The tokens of one turn and of its branches, with the position and the node of each."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    sees: list[list[int]] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)


class Collator:
    """Makes one padded batch of turns, each a separate conversation.

    The positions of a video's tokens count up by one in time, as those of an image do in space: the model
    must have as many `tokens_per_second` as that takes.

    Args:
        tokenizer: with a chat template.
        processor: of images.
    """

    def __init__(self, tokenizer: Any, processor: Any) -> None:
        self.tokenizer = tokenizer
        self.processor = processor
        self._pads = {
            Image.Image: tokenizer.convert_tokens_to_ids(IMAGE_PAD),
            tuple: tokenizer.convert_tokens_to_ids(VIDEO_PAD),
        }
        self._opening, self._closing = (self._encoded(text) for text in self._around())

    def __call__(self, turns: Sequence[Turn]) -> Batch:
        """`input_ids`, `mm_token_type_ids`, `labels` [B, T], padded on the right; `attention_mask`, [B, T]
        or, where turns branch, [B, 1, T, T] and with `position_ids` [3, B, T]; where there are any,
        `pixel_values` [N, P] and `image_grid_thw` [M, 3] of images, `pixel_values_videos` and
        `video_grid_thw` of videos, and `marks` [W, 3], each a row, a token of it, and the token of a word."""
        shown = [part for turn in turns for part in _shown(turn)]
        pixels = {
            **self._images([part for part in shown if isinstance(part, Image.Image)]),
            **self._videos([part for part in shown if isinstance(part, tuple)]),
        }
        rows = [_Row() for _ in turns]
        for row, turn in zip(rows, turns, strict=True):
            self._add(row, turn, self._opening, 0, [])
        ids_BT = _padded([row.ids for row in rows], self.tokenizer.pad_token_id)
        kinds_BT = torch.zeros_like(ids_BT, dtype=torch.int32)
        for number, pad in enumerate(self._pads.values(), 1):
            kinds_BT[ids_BT == pad] = number
        attention = (
            _branching(rows, ids_BT.shape[1])
            if any(turn.branches for turn in turns)
            else {"attention_mask": _padded([[1] * len(row.ids) for row in rows], 0)}
        )
        labels_BT = _padded([row.labels for row in rows], IGNORED)
        marks = [(n, token, word) for n, row in enumerate(rows) for token, word in row.marks]
        return {
            "input_ids": ids_BT,
            "mm_token_type_ids": kinds_BT,
            "labels": labels_BT,
            **({"marks": torch.tensor(marks)} if marks else {}),
            **attention,
            **pixels,
        }

    def _around(self) -> list[str]:
        """The texts of the chat template before and after a question."""
        mark = "<question>"
        text: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        return text.split(mark)

    def _images(self, images: Sequence[Image.Image]) -> Batch:
        return dict(self.processor(images=images, return_tensors="pt")) if images else {}

    def _videos(self, videos: Sequence[Frames]) -> Batch:
        """Each patch of a video spans two frames, where one of an image has the same frame twice."""
        if not videos:
            return {}
        stills = self._images([frame for video in videos for frame in video])
        _, height, width = stills["image_grid_thw"][0].tolist()
        depth = self.processor.temporal_patch_size
        frames = stills["pixel_values"].view(
            -1, depth, height * width, 3, depth, self.processor.patch_size**2
        )
        # Of each still, its copy for its own place in time.
        patches = torch.stack([frames[:, n, :, :, n] for n in range(depth)], dim=3)
        times = [len(video) // depth for video in videos]
        return {
            "pixel_values_videos": patches.reshape(sum(times) * height * width, -1),
            "video_grid_thw": torch.tensor([[time, height, width] for time in times]),
        }

    def _add(self, row: _Row, turn: Turn, opening: list[int], start: int, path: list[int]) -> None:
        """Append a turn and its branches, from the position `start` on; `path` is its ancestors."""
        parts: list[_Part] = [opening, *turn.question]
        answer: list[_Part] = [] if turn.branches else [self._closing[-1:], Taught(turn.answer + IM_END)]
        if answer:
            parts.append(self._closing[:-1])
        if turn.slot:
            start += self._extent(parts)
        path, end = self._node(row, parts, start, path)
        if turn.slot is None:
            self._extend(row, answer, end)
        else:
            both = end if turn.slot else end + self._extent(parts)
            self._node(row, answer, both, [path[0], path[-1]])
        for branch in turn.branches:
            self._add(row, branch, [], end, path)

    def _node(self, row: _Row, parts: Sequence[_Part], start: int, path: list[int]) -> tuple[list[int], int]:
        """Append a node that sees those of `path`; returns the path with it, and the position after it."""
        path = [*path, len(row.sees)]
        row.sees.append(path)
        return path, self._extend(row, parts, start)

    def _extend(self, row: _Row, parts: Sequence[_Part], start: int) -> int:
        """Append to the last node; returns the position after it."""
        for given in parts:
            part = _unmarked(given)
            if isinstance(given, Marked):
                row.marks += self._marks(given, len(row.ids))
            ids = part if isinstance(part, list) else self._ids(part)
            block, extent = self._positions(part)
            row.ids += ids
            row.labels += ids if isinstance(part, Taught) else [IGNORED] * len(ids)
            row.nodes += [len(row.sees) - 1] * len(ids)
            row.positions.append(block + start)
            start += extent
        return start

    def _extent(self, parts: Sequence[_Part]) -> int:
        return sum(self._positions(_unmarked(part))[1] for part in parts)

    def _marks(self, marked: Marked, start: int) -> Iterator[tuple[int, int]]:
        """The tokens of a part that have marks, each with the first token of a word."""
        # An image's first token stands before it.
        first = len(self._ids(marked.part)) - 1 if isinstance(marked.part, str) else 1
        for token, words in enumerate(marked.marks, start + first):
            for word in words:
                yield token, self._encoded(word)[0]

    def _ids(self, part: str | Image.Image | Frames) -> list[int]:
        if isinstance(part, str):
            return self._encoded(part)
        pad = self._pads[tuple if isinstance(part, tuple) else Image.Image]
        before, after = self.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
        return [before, *[pad] * math.prod(self._sides(part)), after]

    def _sides(self, part: Image.Image | Frames) -> tuple[int, int, int]:
        """Tokens in time, height and width; images have the one size to which the processor brings them."""
        side = math.isqrt(self.processor.size["longest_edge"]) // self.processor.patch_size
        time = len(part) // self.processor.temporal_patch_size if isinstance(part, tuple) else 1
        return time, side // self.processor.merge_size, side // self.processor.merge_size

    def _positions(self, part: _Plain) -> tuple[torch.Tensor, int]:
        """Positions [3, L] of a part, from 0 on, and how many it takes (M-RoPE, arXiv 2409.12191)."""
        if isinstance(part, list | str):
            length = len(part if isinstance(part, list) else self._encoded(part))
            return torch.arange(length).expand(3, -1), length
        sides = self._sides(part)
        grid = torch.stack(torch.meshgrid(*(torch.arange(side) for side in sides), indexing="ij")).flatten(1)
        extent = max(sides[1:])
        marks = torch.tensor([[0], [extent + 1]]).expand(2, 3)
        return torch.cat([marks[0][:, None], grid + 1, marks[1][:, None]], dim=1), extent + 2

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids


def _unmarked(part: _Part) -> _Plain:
    return part.part if isinstance(part, Marked) else part


def _shown(turn: Turn) -> Iterator[Image.Image | Frames]:
    """The images and videos of a turn and its branches, in the order of their tokens."""
    parts = map(_unmarked, turn.question)
    yield from (part for part in parts if not isinstance(part, str | list))
    for branch in turn.branches:
        yield from _shown(branch)


def _branching(rows: Sequence[_Row], width: int) -> Batch:
    """The mask of a tree: each token sees its node as far as itself, and its node's ancestors."""
    mask_BTT = torch.zeros(len(rows), width, width, dtype=torch.bool)
    positions_3BT = torch.zeros(3, len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        length = len(row.ids)
        sees = torch.zeros(len(row.sees), len(row.sees), dtype=torch.bool)
        for node, path in enumerate(row.sees):
            sees[node, path] = True
        nodes_T = torch.tensor(row.nodes)
        mask_BTT[n, :length, :length] = sees[nodes_T][:, nodes_T]
        positions_3BT[:, n, :length] = torch.cat(row.positions, dim=1)
    # Padding sees itself, so that no row of the mask is empty.
    mask_BTT = mask_BTT.tril() | torch.eye(width, dtype=torch.bool)
    return {"attention_mask": mask_BTT[:, None], "position_ids": positions_3BT}


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
