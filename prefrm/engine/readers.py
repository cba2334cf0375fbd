"""What is read to compare one prompt's images, and what its readings say. Runs nothing.

joint      K blocks [image 1] that follow the prefix, then K(K-1) rows [image 2, readout]
isolated   2K blocks, one for each image and slot, then K(K-1) rows [readout]
others     K rows [image, readout], then K(K-1) comparisons of numbers
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from prefrm.engine.cache import EncodedImage
from prefrm.engine.passes import Features, Name, Row
from prefrm.engine.plan import Pair
from prefrm.errors import RecordError
from prefrm.judge import Judge, Pieces, SequenceInput, log_odds

__all__ = ["Outcome", "Reader", "open_reader"]

Outcome = tuple[float, float | None]
"""Log-odds that the first of two is preferred, and P(tie) of a judge with ties."""


class Reader(ABC):
    """The comparisons of the images of one prompt.

    Args:
        judge: in evaluation mode.
        prompt: what the images answer.
        images: by digest.

    Attributes:
        prefix: the name of the prompt's own block, to which all other rows attend.
        refused: why comparisons cannot be read, by pair; filled by `rows`.

    Raises:
        RecordError: the prompt is no valid text, or longer than the judge reads.
    """

    def __init__(self, judge: Judge, prompt: str, images: Mapping[str, EncodedImage]) -> None:
        self.prefix: Name = (prompt,)
        self.refused: dict[Pair, str] = {}
        self._judge = judge
        self._images = images
        self._pieces = Pieces(judge.processor, prompt)

    @property
    def features(self) -> Features:
        """Image features, by image."""
        return {image.image: image.features for image in self._images.values()}

    @property
    def opening(self) -> Row:
        """The row of `prefix`."""
        return Row(sequence=self._pieces.prefix)

    @property
    def blocks(self) -> Mapping[Name, Row]:
        """Blocks that follow the prefix, which later rows attend to."""
        return {}

    @abstractmethod
    def rows(self, pairs: Sequence[Pair]) -> Mapping[Name, Row]:
        """Rows with one readout each, by their images, that tell of the pairs that can be read.

        The first of a pair is shown first.
        """

    def outcomes(
        self, pairs: Sequence[Pair], names: Sequence[Name], readings: torch.Tensor
    ) -> dict[Pair, Outcome]:
        """What the judge says of `pairs` by the readings [R, ...] of the rows of those names."""
        place = {name: n for n, name in enumerate(names)}
        found = {pair: (place[pair], place[pair]) for pair in sorted(pairs) if pair in place}
        return self._compared(readings, found)

    def _compared(self, readings: torch.Tensor, pairs: Mapping[Pair, tuple[int, int]]) -> dict[Pair, Outcome]:
        """Of comparisons between readings, by their places."""
        if not pairs:
            return {}
        z, share = log_odds(self._judge.outcomes(readings, torch.tensor(list(pairs.values()))))
        shares = [None] * len(pairs) if share is None else share.tolist()
        return dict(zip(pairs, zip(z.tolist(), shares, strict=True), strict=True))

    def _block(self, place: int, key: str) -> Name:
        return (*self.prefix, place, key)


class _JointReader(Reader):
    """Published judges: the second image sees the first."""

    @property
    def blocks(self) -> Mapping[Name, Row]:
        return {
            self._block(0, key): Row(sequence=first, sees=(self.prefix,))
            for key, first in self._firsts.items()
        }

    def rows(self, pairs: Sequence[Pair]) -> Mapping[Name, Row]:
        found: dict[Name, Row] = {}
        for pair in sorted(pairs):
            first, second = pair
            try:
                sequence = self._pieces.second(self._firsts[first], self._images[second].image)
            except RecordError as error:
                self.refused[pair] = str(error)
            else:
                found[pair] = Row(sequence=sequence, sees=(self.prefix, self._block(0, first)))
        return found

    @cached_property
    def _firsts(self) -> dict[str, SequenceInput]:
        return {key: self._pieces.first(image.image) for key, image in self._images.items()}


class _IsolatedReader(Reader):
    """Slots that see the prefix alone, so that each is read once for all pairs."""

    @property
    def blocks(self) -> Mapping[Name, Row]:
        return {
            self._block(slot, key): Row(sequence=self._pieces.slot(slot, image.image), sees=(self.prefix,))
            for slot in (0, 1)
            for key, image in self._images.items()
            if key not in self._too_long
        }

    def rows(self, pairs: Sequence[Pair]) -> Mapping[Name, Row]:
        self.refused |= {pair: self._too_long[key] for pair in pairs for key in pair if key in self._too_long}
        return {
            pair: Row(
                sequence=self._pieces.readout,
                sees=(self.prefix, *(self._block(slot, key) for slot, key in enumerate(pair))),
            )
            for pair in sorted(pairs)
            if pair not in self.refused
        }

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


class _AloneReader(Reader):
    """Heads that look at one image at a time: each pair is compared once and turned round."""

    def rows(self, pairs: Sequence[Pair]) -> Mapping[Name, Row]:
        found: dict[Name, Row] = {}
        refused: dict[str, str] = {}
        for key in sorted({key for pair in pairs for key in pair}):
            try:
                sequence = self._pieces.alone(self._images[key].image)
            except RecordError as error:
                refused[key] = str(error)
            else:
                found[key,] = Row(sequence=sequence, sees=(self.prefix,))
        self.refused |= {pair: refused[key] for pair in pairs for key in pair if key in refused}
        return found

    def outcomes(
        self, pairs: Sequence[Pair], names: Sequence[Name], readings: torch.Tensor
    ) -> dict[Pair, Outcome]:
        place = {name: n for n, name in enumerate(names)}
        readable = [(a, b) for a, b in pairs if a <= b and (a,) in place and (b,) in place]
        outcomes = self._compared(readings, {(a, b): (place[a,], place[b,]) for a, b in readable})
        return {(b, a): (-z, share) for (a, b), (z, share) in outcomes.items()} | outcomes


def open_reader(judge: Judge, prompt: str, images: Mapping[str, EncodedImage]) -> Reader:
    """The reader of this judge's kind. Arguments and errors are those of `Reader`."""
    kind: type[Reader] = _JointReader
    if not judge.spec.is_pairwise:
        kind = _AloneReader
    elif judge.spec.attention == "isolated":
        kind = _IsolatedReader
    return kind(judge, prompt, images)
