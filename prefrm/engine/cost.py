"""What a group costs an engine, estimated from the headers of its images."""

import math
from functools import lru_cache

from PIL import Image

from prefrm.errors import MediaError
from prefrm.judge import Judge
from prefrm.media import ImageLimits, probe
from prefrm.winmatrix import Group

__all__ = ["CostEstimate"]

# Images of more pixels are taken to have as many tokens as one of these: 2048 x 2048.
MOST_PIXELS = 2**22


class CostEstimate:
    """Tokens that a group sends through the towers: those of its images for each time they are read, and
    those of its questions. Images are told apart by their number of pixels alone, in powers of two.

    Args:
        judge: what reads them.
        pairs: how many unordered pairs of a group are judged at most, or None.
        limits: what an encoded image may be; one beyond them costs nothing.
    """

    def __init__(self, judge: Judge, pairs: int | None, limits: ImageLimits) -> None:
        self._spec = judge.spec
        self._processor = judge.processor
        self._pairs = pairs
        self._limits = limits
        self._tokens_of = lru_cache(maxsize=None)(self._measure)
        _, question = judge.processor.frame("")
        self._question = len(question)

    def __call__(self, group: Group) -> int:
        """Tokens, at least 1."""
        sizes = [self._image_tokens(image) for image in group.images if image]
        sizes = [size for size in sizes if size]
        images, count = sum(sizes), len(sizes)
        orders = count * (count - 1)
        if self._pairs is not None:
            orders = min(orders, 2 * self._pairs)
        if not self._spec.is_pairwise:
            return max(1, 2 * images + count * self._question)
        if self._spec.attention == "isolated":
            return max(1, 3 * images + orders * self._question)
        second = images // count if count else 0
        return max(1, 2 * images + orders * (second + self._question))

    def _image_tokens(self, image: bytes) -> int:
        try:
            info = probe(image, self._limits)
        except MediaError:
            return 0
        pixels = min(info.width * info.height, MOST_PIXELS)
        return self._tokens_of(max(1, pixels - 1).bit_length())

    def _measure(self, power: int) -> int:
        """Tokens of a square image of about 2 ** power pixels."""
        side = math.isqrt(2**power)
        return self._processor.prepare_image(Image.new("RGB", (side, side))).tokens
