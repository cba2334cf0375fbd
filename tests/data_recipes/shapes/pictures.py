"""Random scenes and what happens to pictures on their way: the test bed of the oracle."""

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from data_recipes.shapes.claims import Seen
from data_recipes.shapes.scene import COLORS, GRID, SHAPES


def cells_of(seen: tuple[Seen, ...], grid: int = GRID) -> list[tuple[str, str, int, int]]:
    """What was seen, as cells of a grid, in a fixed order."""
    return sorted((s.kind, s.color, int(s.x * grid), int(s.y * grid)) for s in seen)


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    pixels = pixels + np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def tinted(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) * np.array([1.0, 0.9, 0.7])
    return Image.fromarray(pixels.astype(np.uint8))


def hue_shifted(image: Image.Image, degrees: float) -> Image.Image:
    hsv = np.asarray(image.convert("HSV")).copy()
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees * 256 / 360)) % 256
    return Image.merge("HSV", [Image.fromarray(hsv[..., c]) for c in range(3)]).convert("RGB")


CORRUPTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean": lambda image: image,
    "noise 10": lambda image: noisy(image, 10),
    "noise 30": lambda image: noisy(image, 30),
    "blur 0.7": lambda image: blurred(image, 0.7),
    "blur 1.0": lambda image: blurred(image, 1.0),
    "blur 1.3": lambda image: blurred(image, 1.3),
    "jpeg 75": lambda image: jpeg(image, 75),
    "jpeg 30": lambda image: jpeg(image, 30),
    "tint": tinted,
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "pale": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "hue +12": lambda image: hue_shifted(image, 12),
    "hue -12": lambda image: hue_shifted(image, -12),
    "twice as large": lambda image: image.resize((128, 128), Image.Resampling.BICUBIC),
    "3.5 times as large": lambda image: image.resize((224, 224), Image.Resampling.NEAREST),
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
    "blur, noise, jpeg": lambda image: jpeg(noisy(blurred(image, 0.6), 10), 75),
}

CSS_COLORS = {
    "red": ("red", "#d22", "crimson"),
    "yellow": ("yellow", "gold", "#f0c000"),
    "green": ("green", "limegreen", "#2a2"),
    "blue": ("blue", "#36c", "royalblue"),
    "purple": ("purple", "#83a", "darkviolet"),
    "black": ("black", "#222"),
}


def foreign_picture(
    rng: np.random.Generator, width: int, height: int, background: str
) -> tuple[Image.Image, list[tuple[str, str, int, int]]]:
    """A picture by other code, and what is in it as cells of a 3 x 3 grid: other sizes, other tints of
    each color, turned at random, and no anti-aliasing."""
    image = Image.new("RGB", (width, height), background)
    draw, truth = ImageDraw.Draw(image), []
    for cell in rng.choice(9, size=rng.integers(1, 5), replace=False):
        kind, color = SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))]
        column, row = int(cell) % 3, int(cell) // 3
        x, y = (column + 0.5) * width / 3, (row + 0.5) * height / 3
        radius = min(width, height) * rng.uniform(0.10, 0.14)
        fill = CSS_COLORS[color][rng.integers(len(CSS_COLORS[color]))]
        _draw(draw, kind, fill, x, y, radius, turn=rng.uniform(0, 2 * math.pi))
        truth.append((kind, color, column, row))
    return image, sorted(truth)


def _draw(
    draw: ImageDraw.ImageDraw, kind: str, fill: str, x: float, y: float, radius: float, turn: float
) -> None:
    if kind == "circle":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
        return
    corners = {"triangle": 3, "square": 4, "star": 10}[kind]
    radii = (radius, 0.45 * radius if kind == "star" else radius)
    angles = [turn + 2 * math.pi * n / corners for n in range(corners)]
    points = [(x + radii[n % 2] * math.cos(a), y + radii[n % 2] * math.sin(a)) for n, a in enumerate(angles)]
    draw.polygon(points, fill=fill)
