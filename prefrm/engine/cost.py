"""What a group costs an engine, estimated from the lengths of its texts and the headers of its media."""

import math
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from prefrm.errors import MediaError
from prefrm.judge import ImageInput, Judge
from prefrm.media import ImageLimits, probe
from prefrm.video import Frames, probe_video
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
# Of the frames of a video that is measured.
VIDEO_SIDE = 128
# About as many of a text make a token.
PROMPT_BYTES = 4
# Of RGB in Pillow's memory.
PIXEL_BYTES = 4


class _Size(NamedTuple):
    """Of a candidate or a context image, in tokens.

    Attributes:
        read: by the language model.
        encoded: by the vision tower.
        decoding: the time of decoding it.
    """

    read: int
    encoded: int
    decoding: int


class CostEstimate:
    """Tokens that a group sends through the towers: those of its candidates and its context for each time
    they are read, and those of its prompt, its criterion and its questions; and, in the same unit, the time
    of decoding.

    The tokens of an image follow from its number of pixels alone, in powers of two, which are measured here:
    an estimate runs no image processor. Those of a frame of a video are the same part of an image's in any
    size.

    Args:
        judge: what reads them.
        pairs: how many unordered pairs of a group are judged at most, or None.
        limits: what an encoded image or video may be; one beyond them costs nothing.

    Attributes:
        prepared_bytes: what the largest image or video takes when it is decoded and resized.
    """

    def __init__(self, judge: Judge, pairs: int | None, limits: ImageLimits) -> None:
        self._spec = judge.spec
        self._processor = judge.processor
        self._pairs = pairs
        self._limits = limits
        self.prepared_bytes = 0
        self._tokens_of = _tokens_by_power(self._measure)
        self._frames = self._spec.frames or 1
        self._video_tokens = self._measured_video() if self._spec.kind == "video" else 0.0
        self._again = judge.processor.template.restates
        self._places = judge.processor.layout.criterion_places
        # Without a criterion, the template's lines about one are left out.
        self._filled = {has: judge.processor.layout.fill("", "." * has) for has in (False, True)}

    def __call__(self, group: Group) -> int:
        """Tokens, at least 1."""
        prompt, criterion = _text_tokens(group.prompt), _text_tokens(group.criterion)
        filled = self._filled[bool(group.criterion)]
        question = max(map(len, filled.readouts)) + len(filled.question) + (prompt if self._again else 0)
        in_prefix, with_candidate, later = (criterion * places for places in self._places)
        sizes = [size for one in group.candidates if one and (size := self._size(one, self._spec.kind))]
        context = [size for image in group.context if (size := self._size(image, "image"))]
        read, count = sum(size.read for size in sizes), len(sizes)
        orders = count * (count - 1)
        if self._pairs is not None:
            orders = min(orders, 2 * self._pairs)
        tokens = prompt + in_prefix + read + sum(size.encoded + size.decoding for size in (*sizes, *context))
        tokens += sum(size.read for size in context)
        if self._spec.attention == "joint":
            tokens += orders * (read // max(1, count) + question + later)
        else:
            tokens += count * (question + with_candidate + sum(map(len, filled.suffixes)) + later)
        if self._spec.attention == "late":
            tokens += orders
        return max(1, tokens)

    def _size(self, content: bytes | str, kind: str) -> _Size | None:
        """None of what cannot be read."""
        if isinstance(content, str):
            return _Size(_text_tokens(content), 0, 0)
        try:
            if kind == "video":
                video = probe_video(content, self._limits.video)
                tokens = int(
                    self._image_tokens(video.pixels) * self._video_tokens * min(video.frames, self._frames)
                )
                decoded = video.decoded_pixels
            else:
                image = probe(content, self._limits)
                tokens, decoded = self._image_tokens(image.pixels), image.decoded_pixels
        except MediaError:
            return None
        return _Size(tokens, tokens, decoded // PIXELS_PER_TOKEN)

    def _image_tokens(self, pixels: int) -> int:
        return self._tokens_of[min(max(LEAST, (pixels - 1).bit_length()), MOST)]

    def _measure(self, power: int) -> int:
        """Tokens of a square image of about 2 ** power pixels."""
        side = math.isqrt(2**power)
        image = Image.new("RGB", (side, side))
        prepared, small = self._processor.prepare_image(image), self._processor.shrink(image)
        nbytes = prepared.pixels.nbytes if small is None else PIXEL_BYTES * small.width * small.height
        self.prepared_bytes = max(self.prepared_bytes, nbytes)
        return prepared.tokens

    def _measured_video(self) -> float:
        """Tokens of a frame for each token of an image of its size; a prepared video is as many frames."""
        image = Image.new("RGB", (VIDEO_SIDE, VIDEO_SIDE))
        content = self._processor.prepare_frames(Frames.of([image] * self._frames, 1.0))
        self.prepared_bytes *= self._frames
        tokens = sum(part.tokens if isinstance(part, ImageInput) else len(part) for part in content)
        return tokens / self._frames / self._processor.prepare_image(image).tokens


def _text_tokens(text: str) -> int:
    """About the number of its tokens."""
    return len(text.encode("utf-8", "surrogatepass")) // PROMPT_BYTES


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
