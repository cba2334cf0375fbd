"""What a group costs an engine, estimated from its prompt's length and the headers of its images."""

import math
from collections.abc import Callable, Iterable

from PIL import Image

from prefrm.errors import MediaError
from prefrm.judge import Judge
from prefrm.media import ImageInfo, ImageLimits, probe
from prefrm.winmatrix import Group

__all__ = ["PIXELS_PER_TOKEN", "CostEstimate"]

PIXELS_PER_TOKEN = 1024
"""Pixels that are decoded and resized in about the time that a judge takes for a token.

A core takes 20 to 30 ns a pixel for PNG, and for each scan of a JPEG. The model of `make bench-engine` takes
54 microseconds a token on two cores, which is 2,000 pixels; one of 3 billion parameters on an accelerator
about 20, which is 700.
"""

# Of pixels, as powers of two: an image of fewer counts as one of 16 x 16, up to 512 x 512 all is quick, and
# one of more counts as one of 2048 x 2048.
LEAST, QUICK, MOST = 8, 18, 22
# About as many of a prompt make a token.
PROMPT_BYTES = 4
# Of RGB in Pillow's memory.
PIXEL_BYTES = 4


class CostEstimate:
    """Tokens that a group sends through the towers: those of its images for each time they are read, and
    those of its prompt and of its questions; and, in the same unit, the time of decoding its images.

    The tokens of an image follow from its number of pixels alone, in powers of two, which are measured here:
    an estimate runs no image processor.

    Args:
        judge: what reads them.
        pairs: how many unordered pairs of a group are judged at most, or None.
        limits: what an encoded image may be; one beyond them costs nothing.

    Attributes:
        prepared_bytes: what the largest image takes when it is decoded and resized.
    """

    def __init__(self, judge: Judge, pairs: int | None, limits: ImageLimits) -> None:
        self._spec = judge.spec
        self._processor = judge.processor
        self._pairs = pairs
        self._limits = limits
        self.prepared_bytes = 0
        self._tokens_of = _tokens_by_power(self._measure)
        filled = judge.processor.layout.fill("")
        self._again = judge.processor.template.restates
        self._question = max(map(len, filled.readouts)) + len(filled.question)
        self._suffixes = sum(map(len, filled.suffixes))

    def __call__(self, group: Group) -> int:
        """Tokens, at least 1."""
        prompt = group.text_bytes // PROMPT_BYTES
        question = self._question + (prompt if self._again else 0)
        infos, context = self._infos(group.encoded), self._infos(group.context)
        images, count = sum(map(self._image_tokens, infos)), len(infos)
        decoding = sum(info.decoded_pixels for info in (*infos, *context)) // PIXELS_PER_TOKEN
        orders = count * (count - 1)
        if self._pairs is not None:
            orders = min(orders, 2 * self._pairs)
        tokens = prompt + decoding + 2 * (images + sum(map(self._image_tokens, context)))
        if self._spec.attention == "joint":
            tokens += orders * (images // max(1, count) + question)
        else:
            tokens += count * (question + self._suffixes)
        if self._spec.attention == "late":
            tokens += orders
        return max(1, tokens)

    def _infos(self, images: Iterable[bytes | None]) -> list[ImageInfo]:
        return [info for image in images if image and (info := self._info(image)) is not None]

    def _info(self, image: bytes) -> ImageInfo | None:
        try:
            return probe(image, self._limits)
        except MediaError:
            return None

    def _image_tokens(self, info: ImageInfo) -> int:
        return self._tokens_of[min(max(LEAST, (info.pixels - 1).bit_length()), MOST)]

    def _measure(self, power: int) -> int:
        """Tokens of a square image of about 2 ** power pixels."""
        side = math.isqrt(2**power)
        image = Image.new("RGB", (side, side))
        prepared, small = self._processor.prepare_image(image), self._processor.shrink(image)
        nbytes = prepared.pixels.nbytes if small is None else PIXEL_BYTES * small.width * small.height
        self.prepared_bytes = max(self.prepared_bytes, nbytes)
        return prepared.tokens


def _tokens_by_power(measure: Callable[[int], int]) -> dict[int, int]:
    """Tokens for each power from `LEAST` to `MOST`, of which as few are measured as will do.

    More pixels never have fewer tokens; if four times as many have no more, the pixel budget is spent.
    """
    tokens = {power: measure(power) for power in (LEAST, QUICK)}

    def fill(low: int, high: int) -> None:
        if high - low < 2:
            return
        if tokens[low] == tokens[high]:
            tokens.update(dict.fromkeys(range(low + 1, high), tokens[low]))
            return
        middle = (low + high) // 2
        tokens[middle] = measure(middle)
        fill(low, middle)
        fill(middle, high)

    fill(LEAST, QUICK)
    is_spent = tokens[QUICK - 2] == tokens[QUICK]
    tokens[MOST] = tokens[QUICK] if is_spent else measure(MOST)
    fill(QUICK, MOST)
    return tokens
