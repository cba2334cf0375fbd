"""The readings of one prompt's images, cut where they part, so that what they share is read once.

    joint      [ prefix ] [ image 1 ]  [ image 2, readout ]
    isolated   [ prefix ] [ slot 1 ] [ slot 2 ] [ readout ]
    others     [ prefix ] [ image, readout ]

Each piece stands at the positions that it has in the whole sequence of `JudgeProcessor.prepare_group`, and
attends to itself and to the pieces before it; of the isolated attention as `prefrm.judge.layout` says. What
may be read together, and when, is the engine's to decide.
"""

from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Segment, SequenceInput, arrange
from prefrm.judge.processor import JudgeProcessor

__all__ = ["Pieces"]


class Pieces:
    """The pieces of a prompt.

    Args:
        processor: of the judge.
        prompt: what the images answer.

    Attributes:
        prefix: what stands before the first image's text.
        readout: isolated judges alone: the question, which follows the prefix and both slots.

    Raises:
        RecordError: the prompt is no valid text, or is longer than the model can read.
    """

    def __init__(self, processor: JudgeProcessor, prompt: str) -> None:
        self._processor = processor
        self._prompt = prompt
        opening, self._closing = processor.frame(prompt)
        self._start = len(opening)
        self.prefix = self._piece(Segment(parts=(opening,)))
        if processor.spec.attention == "isolated":
            readout = self._piece(
                Segment(parts=(self._closing,), start=self._start + 2 * processor.stride, read=True)
            )
            processor.check_reach(int(readout.positions_AL.max()) + 1, prompt, ())
            self.readout = readout

    def first(self, image: ImageInput) -> SequenceInput:
        """Joint: the image shown first; it follows the prefix."""
        return self._piece(Segment(parts=(self._processor.layout.first, image), start=self._start))

    def second(self, first: SequenceInput, image: ImageInput) -> SequenceInput:
        """Joint: the image shown second and the readout; they follow the prefix and `first`.

        Raises:
            RecordError: the whole is longer than the model can read.
        """
        start = int(first.positions_AL.max()) + 1
        parts = (self._processor.layout.second, image, self._closing)
        piece = self._piece(Segment(parts=parts, start=start, read=True))
        reach = len(self.prefix) + len(first) + len(piece)
        self._processor.check_reach(reach, self._prompt, (*first.images, image))
        return piece

    def slot(self, place: int, image: ImageInput) -> SequenceInput:
        """Isolated: an image in slot 0 or 1; it follows the prefix.

        Raises:
            RecordError: the image is too long for the slot.
        """
        layout = self._processor.layout
        text = (layout.first, layout.second)[place]
        self._processor.check_slot(text, image)
        start = self._start + place * self._processor.stride
        return self._piece(Segment(parts=(text, image), start=start))

    def alone(self, image: ImageInput) -> SequenceInput:
        """Other heads: an image and the readout; they follow the prefix.

        Raises:
            RecordError: the whole is longer than the model can read.
        """
        parts = (self._processor.layout.first, image, self._closing)
        piece = self._piece(Segment(parts=parts, start=self._start, read=True))
        self._processor.check_reach(len(self.prefix) + len(piece), self._prompt, (image,))
        return piece

    def _piece(self, segment: Segment) -> SequenceInput:
        return arrange([segment], self._processor.positions)
