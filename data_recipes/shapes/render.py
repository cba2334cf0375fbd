"""From a scene to pixels: anti-aliased shapes on white, the same bytes every time.

Each kind is drawn once, eight times too large, and reduced to a mask of one cell; a scene is a few
pastes. This module reads no picture; `oracle` does, and shares nothing with it but `PALETTE`.
"""

import math
from collections.abc import Iterable
from functools import cache

from PIL import Image, ImageDraw

from data_recipes.shapes.scene import GRID, Scene, Shape

__all__ = ["BACKGROUND", "CANVAS", "CELL", "PALETTE", "render", "render_at"]

CELL = 16
"""Pixels along each side of a grid cell."""
CANVAS = GRID * CELL
"""Pixels along each side of a picture: 64."""
BACKGROUND = (255, 255, 255)
PALETTE = {
    "red": (220, 38, 38),
    "yellow": (245, 200, 20),
    "green": (30, 160, 60),
    "blue": (40, 90, 225),
    "purple": (150, 50, 190),
    "black": (30, 30, 30),
}

_OVERSAMPLE = 8
_HALF = 6.5  # half the width of a square or circle, in pixels: 3 pixels stay free between neighbours
_STAR_INNER = 0.42  # inner over outer radius of the star


def render(scene: Scene) -> Image.Image:
    """An RGB picture of CANVAS x CANVAS pixels; equal scenes give equal pixels."""
    return render_at((shape, shape.x * CELL, shape.y * CELL) for shape in scene.shapes)


def render_at(placed: Iterable[tuple[Shape, int, int]]) -> Image.Image:
    """The same of shapes between cells, each with its left and top in pixels."""
    image = Image.new("RGB", (CANVAS, CANVAS), BACKGROUND)
    for shape, left, top in placed:
        image.paste(PALETTE[shape.color], (left, top), _mask(shape.kind))
    return image


@cache
def _mask(kind: str) -> Image.Image:
    """The coverage of one cell by a kind, 0..255."""
    mask = Image.new("L", (CELL * _OVERSAMPLE, CELL * _OVERSAMPLE), 0)
    draw = ImageDraw.Draw(mask)
    if kind == "circle":
        draw.ellipse([v * _OVERSAMPLE for v in (CELL / 2 - _HALF,) * 2 + (CELL / 2 + _HALF,) * 2], fill=255)
    else:
        draw.polygon([(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in _corners(kind)], fill=255)
    return mask.reduce(_OVERSAMPLE)


def _corners(kind: str) -> list[tuple[float, float]]:
    """The corners of a straight-edged kind, in pixels of its cell."""
    low, middle, high = CELL / 2 - _HALF, CELL / 2, CELL / 2 + _HALF
    if kind == "square":
        return [(low, low), (high, low), (high, high), (low, high)]
    if kind == "triangle":
        return [(middle, low), (high, high), (low, high)]
    radii = (_HALF * 1.1, _HALF * 1.1 * _STAR_INNER)
    angles = [-math.pi / 2 + math.pi * n / 5 for n in range(10)]
    return [
        (middle + radii[n % 2] * math.cos(a), middle + 0.5 + radii[n % 2] * math.sin(a))
        for n, a in enumerate(angles)
    ]
