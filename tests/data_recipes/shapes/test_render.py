import hashlib

import numpy as np
import pytest

from data_recipes.shapes.render import BACKGROUND, CANVAS, CELL, PALETTE, render
from data_recipes.shapes.scene import COLORS, GRID, SHAPES, Scene, Shape
from prefrm import media


def test_a_picture_has_its_shapes_where_the_scene_says() -> None:
    image = render(Scene.parse("red square 0 0 ; blue circle 3 1"))
    assert image.mode == "RGB"
    assert image.size == (CANVAS, CANVAS) == (64, 64)
    assert image.getpixel((CELL // 2, CELL // 2)) == PALETTE["red"]
    assert image.getpixel((3 * CELL + CELL // 2, CELL + CELL // 2)) == PALETTE["blue"]
    assert image.getpixel((CELL // 2, 3 * CELL)) == BACKGROUND


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_stays_inside_its_cell_and_is_anti_aliased(kind: str) -> None:
    pixels = np.asarray(render(Scene(shapes=(Shape(kind=kind, color="black", x=1, y=2),))))[..., 0]
    inside = np.zeros((CANVAS, CANVAS), bool)
    inside[2 * CELL + 1 : 3 * CELL - 1, CELL + 1 : 2 * CELL - 1] = True
    assert (pixels[~inside] == 255).all()
    assert ((pixels[inside] > 30) & (pixels[inside] < 255)).any()


def test_equal_scenes_give_equal_bytes() -> None:
    program = " ; ".join(
        f"{color} {kind} {n} {n}" for n, (color, kind) in enumerate(zip(COLORS, SHAPES, strict=False))
    )
    first, second = (media.encode_png(render(Scene.parse(program))) for _ in range(2))
    assert first == second


def test_pixels_are_pinned() -> None:
    """Data built on another machine, or by a later version, must be the same data."""
    program = "red circle 0 0 ; yellow square 1 1 ; green triangle 2 2 ; blue star 3 3 ; purple star 3 0"
    pixels = np.asarray(render(Scene.parse(program))).tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:16] == "ffdf70bb583dc59f"


def test_every_color_has_a_place_in_the_palette() -> None:
    assert tuple(PALETTE) == COLORS
    assert CELL * GRID == CANVAS
