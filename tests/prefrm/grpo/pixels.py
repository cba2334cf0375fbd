"""Images of one shade, and a scorer that reads the shade off the encoded image."""

import io
import math

import numpy as np
from PIL import Image

from prefrm.winmatrix import FakeScorer, Group

FIRST_BONUS = 0.5


def shades(*values):
    """float32 NCHW, each image of one shade in [0, 1], as it is after 8 bits."""
    rounded = np.round(np.array(values) * 255) / 255
    return np.ones((len(values), 3, 4, 5), np.float32) * rounded[:, None, None, None].astype(np.float32)


def brightness(prompt, image):
    return float(np.asarray(Image.open(io.BytesIO(image)), dtype=np.float64).mean()) / 25.5


class PixelScorer(FakeScorer):
    """Prefers the brighter image, and whichever it sees first."""

    def __init__(self):
        super().__init__(brightness, first_bonus=FIRST_BONUS)
        self.groups: list[Group] = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)

    @staticmethod
    def gap(value, other):
        """The order gap of two shades."""
        d = 10 * (round(value * 255) - round(other * 255)) / 255

        def win(z):
            return 1 / (1 + math.exp(-z))

        return abs(win(d + FIRST_BONUS) - win(d - FIRST_BONUS))


class AsyncPixelScorer(PixelScorer):
    async def score(self, groups):
        return super().score(groups)
