"""What a dual encoder is, in plain data: how it reads a text and an image, and what its utility is."""

from dataclasses import dataclass
from typing import Literal

from prefrm.errors import ConfigError

__all__ = ["DualSpec", "ImageFit", "TextReading"]

MOST_SIDE = 4096
MOST_TOKENS = 4096
FILTERS = 6
"""How many filters Pillow has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFit:
    """How an image becomes the square of pixels that an image encoder reads.

    Attributes:
        side: of the square, in pixels.
        fit: "crop" resizes the shorter side to `side` and cuts the center out; "letterbox" resizes the longer
            side as a tensor and pads with black, before normalization; "stretch" changes the aspect ratio.
        center: how "crop" rounds half a pixel: "down" as the image processors of `transformers`, "even" as
            torchvision's `CenterCrop`.
        resample: Pillow's number of the filter; 3 is bicubic.
        mean: of each channel, of pixels in [0, 1].
        std: of each channel.

    Raises:
        ConfigError: a number is out of range.
    """

    side: int
    fit: Literal["crop", "letterbox", "stretch"]
    center: Literal["down", "even"] = "down"
    resample: int = 3
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.side <= MOST_SIDE:
            raise ConfigError(f"side must be in [1, {MOST_SIDE}]; received {self.side}")
        if self.resample not in range(FILTERS):
            raise ConfigError(f"resample must be in [0, {FILTERS - 1}]; received {self.resample}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"mean and std are three numbers each, std positive; received {self.mean} and {self.std}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """How a prompt becomes tokens.

    Attributes:
        tokens: the most that a text has, with its start and end; the rest is cut off.
        pad_id: the token with which a text is padded to `tokens`; None does not pad it.
        clean: what is done to the text before: "none"; "html" resolves HTML entities, as OpenCLIP does;
            "lower" lowers the case; "canonical" removes punctuation as well, as SigLIP does.

    Raises:
        ConfigError: a number is out of range.
    """

    tokens: int
    pad_id: int | None = None
    clean: Literal["none", "html", "lower", "canonical"] = "none"

    def __post_init__(self) -> None:
        if not 3 <= self.tokens <= MOST_TOKENS:
            raise ConfigError(f"tokens must be in [3, {MOST_TOKENS}]; received {self.tokens}")
        if self.pad_id is not None and self.pad_id < 0:
            raise ConfigError(f"pad_id must not be negative; received {self.pad_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DualSpec:
    """A judge that encodes each image by itself: K + 1 encodes a group of K.

    "fusion" is K image encodes, and K passes of a text encoder over the prompt, each with one image.

    Attributes:
        base_model: the published judge that it is, such as "pickscore".
        score: the utility of an image, in nats. "similarity": exp(logit_scale) times the cosine of text and
            image (CLIP, arXiv 2103.00020); "aesthetic": an affine map of the normalized image embedding, the
            prompt is not read; "fusion": an affine map of a text encoder's first state, which attends to the
            image (BLIP, arXiv 2201.12086).
        image: how images are read.
        text: how prompts are read; None for "aesthetic".

    Raises:
        ConfigError: a text is to be read and `text` is None, or the other way round.
    """

    base_model: str
    score: Literal["similarity", "aesthetic", "fusion"]
    image: ImageFit
    text: TextReading | None

    def __post_init__(self) -> None:
        if (self.text is None) != (self.score == "aesthetic"):
            raise ConfigError(
                f"a dual encoder reads a text unless its score is aesthetic; received score={self.score} "
                f"{'without' if self.text is None else 'with'} text"
            )
