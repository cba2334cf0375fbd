"""A group as a tree of segments, each read once, and the segments that each attends to.

    joint   prefix -> candidate i as first (K) -> candidate j as second, question (K(K-1))
    late    prefix, with the question -> candidate, prompt again (K) -> suffix for slot 1, for slot 2 (2K)
            -> answer (K(K-1), one token), which sees the prefix and two suffixes, and no candidate
    alone   prefix -> candidate, question (K)
            with Q readouts, or a criterion: prefix -> candidate (K) -> question as far as a readout (QK)

A position attends to the earlier positions of its own segment and to the segments that its segment sees. One
tree is trained on (`prefrm.judge.batch`) and scored by the engine. Independent of the model.

Shapes: K candidates, L positions of a segment, A axes of a position.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from prefrm.errors import RecordError
from prefrm.judge.images import ImageInput
from prefrm.judge.tokens import FilledTemplate, Part

__all__ = ["TREES", "Content", "Name", "Pair", "Part", "Positions", "Segment", "Tree", "path"]

Content = tuple[Part, ...]
"""A candidate: an image, frames with what stands between them, or the tokens of a text."""
Positions = Callable[[Sequence[int | ImageInput]], torch.Tensor]
"""From text lengths and images, in reading order, to position ids [A, L] that start at 0."""
Name = tuple[Hashable, ...]
"""Of a segment in its tree: () the prefix, (key,) a candidate, (key, "slot", n) its suffix for a slot,
(key, "readout", n) one of its readouts, and another answer by the keys that it is about."""
Pair = tuple[Any, Any]
"""A comparison by the keys of its candidates, the one shown first before the other."""
PREFIX: Name = ()
SIZES = {
    "image": ("images", "lower max_pixels"),
    "video": ("videos", "lower max_pixels or frames"),
    "text": ("texts", "the texts"),
}
"""What candidates are called, and what makes them shorter, in messages."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """A run of tokens.

    Attributes:
        ids_L: int64; an image's tokens are placeholders.
        offsets_AL: int64, positions relative to `start`.
        extent: number of positions that it takes.
        images: in the order of their tokens.
        start: position of its first token.
        sees: earlier segments that it attends to, besides itself.
    """

    ids_L: torch.Tensor
    offsets_AL: torch.Tensor
    extent: int
    images: tuple[ImageInput, ...] = ()
    start: int = 0
    sees: tuple[Name, ...] = ()

    def __len__(self) -> int:
        return self.ids_L.numel()

    @property
    def end(self) -> int:
        """The position after its last one."""
        return self.start + self.extent

    @property
    def positions_AL(self) -> torch.Tensor:
        """Position ids."""
        return self.offsets_AL + self.start

    def after(self, start: int, *sees: Name) -> "Segment":
        """The same tokens at another position, attending to `sees`."""
        # There is one for each pair: `replace` takes twice the time.
        return Segment(
            ids_L=self.ids_L,
            offsets_AL=self.offsets_AL,
            extent=self.extent,
            images=self.images,
            start=start,
            sees=sees,
        )


class Tree(ABC):
    """The segments of one prompt's candidates.

    Args:
        texts: the tokens around the candidates.
        candidates: by any keys; one that is an image alone may be given as that image.
        kind: of the candidates, as in `JudgeSpec`.
        reads: P, the number of positions of a readout, the last ones of its answer.
        criterion_level: the first level that depends on the group's criterion, counting the answers as the
            last one; None if none does. Segments of earlier levels are the same for all criteria.
        positions: of the model's family.
        max_length: number of tokens that the model reads.

    Attributes:
        levels: segments that later ones attend to, by name: the prefix, and then segments that see those of
            earlier levels. Answers see the prefix and segments of the last level.
        refused: why comparisons cannot be read, filled by `readable`.
        reads, criterion_level: as above.

    Raises:
        RecordError: the prompt is longer than the model reads.
    """

    def __init__(
        self,
        texts: FilledTemplate,
        candidates: Mapping[Hashable, Content | ImageInput],
        *,
        kind: str,
        reads: int,
        criterion_level: int | None,
        positions: Positions,
        max_length: int,
    ) -> None:
        self.refused: dict[Pair, str] = {}
        self.reads = reads
        self.criterion_level = criterion_level
        self._texts, self._kind = texts, kind
        self._contents = {
            key: (content,) if isinstance(content, ImageInput) else content
            for key, content in candidates.items()
        }
        self._positions, self._max_length = positions, max_length
        prefix = self._segment(*texts.opening)
        if (reason := self._refusal(len(prefix))) is not None:
            raise RecordError(reason)
        self._start = prefix.end
        self.levels: list[dict[Name, Segment]] = [{PREFIX: prefix}, *self._candidates()]

    @property
    def prefix(self) -> Segment:
        """The segment that all others see."""
        return self.levels[0][PREFIX]

    @cached_property
    def shared(self) -> dict[Name, Segment]:
        """The segments of all levels."""
        return {name: segment for level in self.levels for name, segment in level.items()}

    def readable(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Those of `pairs` that the model can read; `refused` has the reason for the others."""
        readable = []
        for first, second in pairs:
            if (reason := self._pair_refusal(first, second)) is None:
                readable.append((first, second))
            else:
                self.refused[first, second] = reason
        return readable

    def answers(self, pairs: Iterable[Pair]) -> dict[Name, Segment]:
        """The segments whose last positions are read out for readable pairs, by name."""
        return {name: self._answer(name) for pair in pairs for name in dict.fromkeys(self.readouts(pair))}

    def readouts(self, pair: Pair) -> tuple[Name, ...]:
        """The answers that a comparison is between: of a pairwise head twice the same one, of others those of
        the first candidate, and then as many of the second one."""
        return pair, pair

    def _candidates(self) -> list[dict[Name, Segment]]:
        """The levels after the prefix."""
        return []

    @abstractmethod
    def _answer(self, name: Name) -> Segment:
        """The answer of that name."""

    def _pair_refusal(self, first: Hashable, second: Hashable) -> str | None:
        """Why a comparison cannot be read, if it cannot: one of its candidates is too long."""
        return self._refusals[first] or self._refusals[second]

    @cached_property
    def _refusals(self) -> dict[Hashable, str | None]:
        return {key: self._refusal(sum(map(len, self._read_for(key))), key) for key in self._contents}

    def _read_for(self, key: Hashable) -> tuple[Segment, ...]:
        """The segments that answers about a candidate depend on, but for those of another one."""
        return self.prefix, self._answer((key,))

    def _placed(self, after: Sequence[int] = ()) -> dict[Name, Segment]:
        """Each candidate, and what follows it, after the prefix."""
        return {
            (key,): self._segment(*content, list(after)).after(self._start, PREFIX)
            for key, content in self._contents.items()
        }

    def _segment(self, *parts: Part) -> Segment:
        images = tuple(part for part in parts if isinstance(part, ImageInput))
        ids = [i for part in parts for i in (part.ids if isinstance(part, ImageInput) else part)]
        places = [part if isinstance(part, ImageInput) else len(part) for part in parts]
        # With the token that follows, since a video's positions in time may lie beyond it.
        offsets_AM = self._positions([*places, 1])
        return Segment(
            ids_L=torch.tensor(ids),
            offsets_AL=offsets_AM[:, :-1],
            extent=int(offsets_AM[0, -1]),
            images=images,
        )

    def _refusal(self, length: int, *keys: Hashable) -> str | None:
        if length <= self._max_length:
            return None
        nouns, advice = SIZES[self._kind]
        prompt = "the prompt and its question have" if self._texts.images_first else "the prompt has"
        counts, shorter = [f"{prompt} {self._texts.prompt_tokens} tokens"], ["shorten the prompt"]
        if criterion := self._texts.criterion_tokens:
            counts.append(f"the criterion {criterion}")
            shorter.append("the criterion")
        shorter.append(advice)
        if context := sum(part.tokens for part in self._texts.opening if isinstance(part, ImageInput)):
            counts.append(f"the context images {context}")
            shorter.append("send fewer context images")
        if keys:
            sizes = " and ".join(str(_length(self._contents[key])) for key in keys)
            counts.append(f"the {nouns} {sizes} tokens")
        return (
            f"the comparison has {length} tokens and the model reads {self._max_length}: "
            f"{_listed(counts, 'and')}; {_listed(shorter, 'or')}"
        )


class _JointTree(Tree):
    """The second image sees the first, as in one message of two images."""

    def _candidates(self) -> list[dict[Name, Segment]]:
        return [self._placed()]

    @cached_property
    def _seconds(self) -> dict[Hashable, Segment]:
        second, closing = self._texts.second, self._texts.closing
        return {key: self._segment(second, *content, closing) for key, content in self._contents.items()}

    def _answer(self, name: Name) -> Segment:
        first: Name = (name[0],)
        return self._seconds[name[1]].after(self.levels[1][first].end, PREFIX, first)

    def _pair_refusal(self, first: Hashable, second: Hashable) -> str | None:
        length = len(self.prefix) + len(self.levels[1][first,]) + len(self._seconds[second])
        return self._refusal(length, first, second)


class _LateTree(Tree):
    """A candidate is read once and summed up for each slot; answers see two suffixes."""

    def _candidates(self) -> list[dict[Name, Segment]]:
        candidates = self._placed(self._texts.closing)
        # All suffixes of a slot are neighbours, since an answer attends to one of each slot.
        slots: dict[Name, Segment] = {}
        before = 0
        for slot, suffix in enumerate(map(self._segment, self._texts.suffixes)):
            for key in self._contents:
                slots[key, "slot", slot] = suffix.after(candidates[key,].end + before, PREFIX, (key,))
            before += suffix.extent
        return [candidates, slots]

    @cached_property
    def _close(self) -> Segment:
        return self._segment(self._texts.question)

    def _answer(self, name: Name) -> Segment:
        first, second = name
        # After both suffixes of the longer candidate.
        start = max(self.levels[2][first, "slot", 1].end, self.levels[2][second, "slot", 1].end)
        return self._close.after(start, PREFIX, (first, "slot", 0), (second, "slot", 1))

    def _read_for(self, key: Hashable) -> tuple[Segment, ...]:
        suffixes = (self.levels[2][key, "slot", n] for n in (0, 1))
        return self.prefix, self.levels[1][key,], *suffixes, self._close


class _AloneTree(Tree):
    """Heads that read one candidate at a time: a comparison is between two readouts, or two sets of them."""

    def readouts(self, pair: Pair) -> tuple[Name, ...]:
        return tuple(name for key in pair for name in self._names(key))

    def _names(self, key: Hashable) -> list[Name]:
        """Of a candidate's answers, each of which ends where it is read."""
        count = len(self._texts.readouts)
        return [(key, "readout", n) for n in range(count)] if self._is_split else [(key,)]

    @property
    def _is_split(self) -> bool:
        """Whether the candidate is a segment: several readouts see it, or those of several criteria."""
        return len(self._texts.readouts) > 1 or self.criterion_level == 2

    def _candidates(self) -> list[dict[Name, Segment]]:
        return [self._placed()] if self._is_split else []

    @cached_property
    def _answers(self) -> dict[Name, Segment]:
        if not self._is_split:
            return self._placed(self._texts.readouts[0])
        runs = [self._segment(readout) for readout in self._texts.readouts]
        return {
            (key, "readout", n): run.after(self.levels[1][key,].end, PREFIX, (key,))
            for key in self._contents
            for n, run in enumerate(runs)
        }

    def _answer(self, name: Name) -> Segment:
        return self._answers[name]

    def _read_for(self, key: Hashable) -> tuple[Segment, ...]:
        longest = max((self._answers[name] for name in self._names(key)), key=len)
        candidate = (self.levels[1][key,],) if self._is_split else ()
        return self.prefix, *candidate, longest


TREES: dict[str, type[Tree]] = {"joint": _JointTree, "late": _LateTree, "alone": _AloneTree}
"""By the attention of a `JudgeSpec`."""


def path(tree: Tree, answer: Segment) -> list[Segment]:
    """The segments of an answer of the joint attention or alone, one causal sequence in reading order."""
    return [*(tree.shared[name] for name in answer.sees), answer]


def _listed(items: Sequence[str], word: str) -> str:
    """The items with commas between them, and the word before the last one."""
    *others, last = items
    return f"{', '.join(others)} {word} {last}" if others else last


def _length(content: Content) -> int:
    """Number of tokens."""
    return sum(part.tokens if isinstance(part, ImageInput) else len(part) for part in content)
