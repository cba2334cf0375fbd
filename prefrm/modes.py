"""Pillow modes: conversion to 8-bit grey, to RGB over white, and to a mode that PNG has."""

import numpy as np
from PIL import Image

from prefrm.errors import MediaError

__all__ = ["check_samples", "for_png", "to_rgb"]

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Of Pillow's 32-bit modes the largest sample ("I" holds 16-bit grey, "F" the range of 8 bits), and that of
# the range in which such samples often are instead: an image within it would be black.
SAMPLES = {"I": (0xFFFF, 0xFF), "F": (0xFF, 1)}
# Side of the tiles in which transparency is composited, in pixels.
TILE = 512


def check_samples(image: Image.Image) -> None:
    """Raise `MediaError` if an image of mode I or F has samples that are out of range or ambiguous."""
    if image.mode not in SAMPLES:
        return
    samples, (largest, smaller) = np.asarray(image), SAMPLES[image.mode]
    low, high = samples.min(), samples.max()
    # NaN is in no range.
    if not 0 <= low <= high <= largest or 0 < high <= smaller:
        meant = f", which look like samples from 0 to {smaller}" if 0 < high <= smaller else ""
        raise MediaError(
            f"an image of mode {image.mode} has samples from 0 to {largest}; received {low:g} to {high:g}"
            f"{meant}; scale them"
        )


def for_png(image: Image.Image) -> Image.Image:
    """The same picture in a mode that PNG has."""
    if image.mode in PNG_MODES:
        return image
    if image.mode.startswith("I;16"):
        # Pillow's own conversion from another byte order clips at 255.
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    modes = {"I": "I;16", "La": "LA"}
    return image.convert(modes.get(image.mode, "RGBA" if image.has_transparency_data else "RGB"))


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as RGB, transparency over white. Raises as `check_samples`."""
    pixels = _eight_bit(image)
    return _over_white(pixels) if pixels.has_transparency_data else pixels.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """An image with transparency as RGB over white.

    By tiles, because Pillow composites without releasing the GIL: an image of 64 million pixels would hold up
    every other thread for a second.
    """
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, TILE):
        for left in range(0, image.width, TILE):
            box = (left, top, min(left + TILE, image.width), min(top + TILE, image.height))
            tile = image.crop(box).convert("RGBA")
            white = Image.new("RGBA", tile.size, "white")
            flat.paste(Image.alpha_composite(white, tile).convert("RGB"), box)
    return flat


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits, other images as they are. Raises as `check_samples`."""
    check_samples(image)
    # Pillow's own conversion of 16-bit grey clips at 255 and so turns most of it white.
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
