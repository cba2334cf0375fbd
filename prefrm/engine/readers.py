"""Comparisons of one prompt's images, each image read once: what is encoded, and what is read off it.

    joint      K blocks [image 1] that follow the prefix, then K(K-1) rows [image 2, readout]
    isolated   2K blocks, one for each image and slot, then K(K-1) rows [readout]
    others     K rows [image, readout], then K(K-1) comparisons of numbers

A pass of the language model has rows of one group alone, so what else is scored changes no bit of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from prefrm.engine.attention import Memory, Shared
from prefrm.engine.cache import EncodedImage
from prefrm.engine.plan import Pair, runs_of_rows
from prefrm.engine.reading import keep_rows, read_rows
from prefrm.errors import RecordError
from prefrm.judge import Judge, Pieces, SequenceInput, log_odds

__all__ = ["Outcome", "Reader", "open_reader"]

Outcome = tuple[float, float | None]
"""Log-odds that the first of two is preferred, and P(tie) of a judge with ties."""


class Reader(ABC):
    """Compares the images of one prompt; what it has read of them serves every later comparison.

    Args:
        judge: in evaluation mode.
        prompt: what the images answer.
        images: by digest.
        tokens: how many run through the language model at once, or one row if that has more.
        prefix: of another reader of this prompt.

    Attributes:
        refused: why comparisons could not be read, by pair; filled by `compare`.

    Raises:
        RecordError: the prompt is no valid text, or longer than the judge reads.
    """

    def __init__(
        self,
        judge: Judge,
        prompt: str,
        images: Mapping[str, EncodedImage],
        tokens: int,
        prefix: Memory | None = None,
    ) -> None:
        self.refused: dict[Pair, str] = {}
        self._judge = judge
        self._images = images
        self._tokens = tokens
        self._features = {image.image: image.features for image in images.values()}
        self._pieces = Pieces(judge.processor, prompt)
        self._place = {key: n for n, key in enumerate(images)}
        if prefix is not None:
            self.prefix = prefix

    @abstractmethod
    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, Outcome]:
        """What the judge says of each pair that it can read, the first of it shown first."""

    @cached_property
    def prefix(self) -> Memory:
        """The prompt's own block, which every reader of this prompt may share."""
        return self._keep([self._pieces.prefix])

    def _after_prefix(self, rows: int) -> Shared:
        return Shared(self.prefix, [0] * rows)

    def _keep(self, rows: Sequence[SequenceInput], *, after_prefix: bool = False) -> Memory:
        def parts() -> Iterator[Memory]:
            for run in runs_of_rows([len(row) for row in rows], self._tokens):
                some = rows[run.start : run.stop]
                seen = [self._after_prefix(len(some))] if after_prefix else []
                yield keep_rows(self._judge, some, seen, self._features)

        return Memory.collected(parts(), blocks=len(rows), length=max(map(len, rows)))

    def _outcomes(self, readings: torch.Tensor, pairs: Mapping[Pair, tuple[int, int]]) -> dict[Pair, Outcome]:
        """Of comparisons between readings, by their places."""
        z, share = log_odds(self._judge.outcomes(readings, torch.tensor(list(pairs.values()))))
        shares = [None] * len(pairs) if share is None else share.tolist()
        return dict(zip(pairs, zip(z.tolist(), shares, strict=True), strict=True))


class _JointReader(Reader):
    """Published judges: the second image sees the first."""

    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, Outcome]:
        rows = {pair: row for pair in sorted(pairs) if (row := self._row(pair)) is not None}
        if not rows:
            return {}
        readings = []
        for run in runs_of_rows([len(row) for row in rows.values()], self._tokens):
            some = list(rows)[run.start : run.stop]
            seen = [
                self._after_prefix(len(some)),
                Shared(self._firsts, [self._place[first] for first, _ in some]),
            ]
            readings.append(read_rows(self._judge, [rows[pair] for pair in some], seen, self._features))
        return self._outcomes(torch.cat(readings), {pair: (n, n) for n, pair in enumerate(rows)})

    @cached_property
    def _first_pieces(self) -> dict[str, SequenceInput]:
        return {key: self._pieces.first(image.image) for key, image in self._images.items()}

    @cached_property
    def _firsts(self) -> Memory:
        return self._keep(list(self._first_pieces.values()), after_prefix=True)

    def _row(self, pair: Pair) -> SequenceInput | None:
        first, second = pair
        try:
            return self._pieces.second(self._first_pieces[first], self._images[second].image)
        except RecordError as error:
            self.refused[pair] = str(error)
            return None


class _IsolatedReader(Reader):
    """Slots that see the prefix alone, so that each is read once for all pairs."""

    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, Outcome]:
        for pair in pairs:
            for key in pair:
                if key in self._too_long:
                    self.refused[pair] = self._too_long[key]
        readable = [pair for pair in sorted(pairs) if pair not in self.refused]
        if not readable:
            return {}
        readings, readout = [], self._pieces.readout
        for run in runs_of_rows([len(readout)] * len(readable), self._tokens):
            some = readable[run.start : run.stop]
            seen = [self._after_prefix(len(some))]
            for slot, (memory, places) in enumerate(self._slots):
                seen.append(Shared(memory, [places[pair[slot]] for pair in some]))
            readings.append(read_rows(self._judge, [readout] * len(some), seen, self._features))
        return self._outcomes(torch.cat(readings), {pair: (n, n) for n, pair in enumerate(readable)})

    @cached_property
    def _too_long(self) -> dict[str, str]:
        """Why images fit into no slot."""
        reasons = {}
        for key, image in self._images.items():
            try:
                for slot in (0, 1):
                    self._pieces.slot(slot, image.image)
            except RecordError as error:
                reasons[key] = str(error)
        return reasons

    @cached_property
    def _slots(self) -> list[tuple[Memory, dict[str, int]]]:
        """The blocks of each slot, and the place of each image's."""
        keys = [key for key in self._images if key not in self._too_long]
        places = {key: n for n, key in enumerate(keys)}
        return [
            (
                self._keep(
                    [self._pieces.slot(slot, self._images[key].image) for key in keys], after_prefix=True
                ),
                places,
            )
            for slot in (0, 1)
        ]


class _AloneReader(Reader):
    """Heads that look at one image at a time: each pair is compared once and turned round."""

    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, Outcome]:
        readings, place, refused = self._readings
        self.refused |= {
            pair: reason for pair in pairs for key in pair if (reason := refused.get(key)) is not None
        }
        compared = {(a, b): (place[a], place[b]) for a, b in pairs if a <= b and a in place and b in place}
        if not compared:
            return {}
        outcomes = self._outcomes(readings, compared)
        return {(b, a): (-z, share) for (a, b), (z, share) in outcomes.items()} | outcomes

    @cached_property
    def _readings(self) -> tuple[torch.Tensor, dict[str, int], dict[str, str]]:
        """Of each image that can be read, its place among them, and why others cannot."""
        rows: dict[str, SequenceInput] = {}
        refused: dict[str, str] = {}
        for key, image in self._images.items():
            try:
                rows[key] = self._pieces.alone(image.image)
            except RecordError as error:
                refused[key] = str(error)
        readings = []
        for run in runs_of_rows([len(row) for row in rows.values()], self._tokens):
            some = list(rows.values())[run.start : run.stop]
            readings.append(read_rows(self._judge, some, [self._after_prefix(len(some))], self._features))
        found = torch.cat(readings) if readings else torch.empty(0)
        return found, {key: n for n, key in enumerate(rows)}, refused


def open_reader(
    judge: Judge,
    prompt: str,
    images: Mapping[str, EncodedImage],
    tokens: int,
    prefix: Memory | None = None,
) -> Reader:
    """The reader of this judge's kind. Arguments and errors are those of `Reader`."""
    kind: type[Reader] = _JointReader
    if not judge.spec.is_pairwise:
        kind = _AloneReader
    elif judge.spec.attention == "isolated":
        kind = _IsolatedReader
    return kind(judge, prompt, images, tokens, prefix)
