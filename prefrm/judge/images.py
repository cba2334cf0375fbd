"""A prepared image or video: the input of a vision tower, and the placeholder tokens of a sequence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["ImageInput"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageInput:
    """A prepared image, or frames that share tokens. Two are equal only if they are the same object.

    Attributes:
        pixels: float32, normalized; the first axis is patches or tiles, the others are the family's.
        grid: the family's facts about the image's shape, such as patches in time, height and width.
        ids: the tokens that stand for it, placeholders and whatever the family writes between them.
        times: of a video, the position in time of each step of the grid, from 0; () for an image.
    """

    pixels: torch.Tensor
    grid: tuple[int, ...]
    ids: list[int]
    times: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by value: a shared tensor takes a file descriptor, and batches ahead have many images."""
        return _image_input, (self.pixels.numpy(), self.grid, self.ids, self.times)

    @property
    def units(self) -> int:
        """How many patches or tiles the image has."""
        return len(self.pixels)

    @property
    def tokens(self) -> int:
        """How many positions the image takes in a sequence."""
        return len(self.ids)


def _image_input(
    pixels: npt.NDArray[np.float32], grid: tuple[int, ...], ids: list[int], times: tuple[int, ...]
) -> ImageInput:
    return ImageInput(pixels=torch.from_numpy(pixels), grid=grid, ids=ids, times=times)
