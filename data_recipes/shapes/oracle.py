"""The oracle: reads a picture of colored shapes, whoever drew it, and counts which claims of a prompt hold.

It takes things apart by their distance from the background, names their color by the direction of that
distance and their kind by the geometry of their outline, so it works on noise, blur, tints, JPEG, other
sizes and other programs' shapes. It knows nothing of scenes or of how `render` draws, and learns nothing.

Shapes: H, W pixels; C palette colors; N points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_recipes.shapes.claims import Seen
from data_recipes.shapes.prompts import Prompt
from data_recipes.shapes.render import PALETTE
from prefrm.errors import missing_extra

__all__ = ["Assessment", "Judgeable", "assess", "read"]

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SIDE = 64  # the working size: pictures are scaled so that their longer side has this many pixels
_BLUR = 0.5  # pixels; takes the top off noise without melting a star
_FAINT = 0.3  # a pixel is part of a thing if it is covered by at least this much of a palette color
_SOLID = 0.8  # of a thing's full cover: pixels above it vote on its color, the others are its edge
_SMALLEST = 0.006  # of the canvas: less is noise. The renderer's star covers 0.015
_MIXED = 0.2  # a second color with this share of a thing's pixels is a second thing that touches it
_ZOOM = 3  # outlines are traced on a grid this much finer
_OUTLINE = 0.33  # of a thing's full cover; lower than a half keeps the arms of a blurred star

# Between what was measured for each kind on clean, noisy, blurred and JPEG pictures; see `_kind`.
_STAR_HULL = 0.84
_BLURRED_STAR_HULL = 0.94
_BLURRED_STAR_FILLS = (0.71, 0.88)
_TRIANGLE_FILLS = 0.77
_CIRCLE_FILLS = 0.895


class Judgeable(Protocol):
    """A claim of any world: decided on whatever view of a candidate that world has."""

    def holds(self, seen: Any, /) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How many of a prompt's claims hold for a picture."""

    held: int
    total: int

    @classmethod
    def of(cls, claims: Sequence[Judgeable], view: Any) -> "Assessment":
        """Check every claim on a view of the candidate, such as the things seen in a picture."""
        return cls(held=sum(claim.holds(view) for claim in claims), total=len(claims))

    @property
    def score(self) -> float:
        """The share of claims that hold, in [0, 1]."""
        return self.held / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thing:
    """A connected patch of the picture: its cover (0 outside the thing), palette index and corner."""

    cover: Floats
    color: int
    top: int
    left: int


def assess(prompt: Prompt, image: Image.Image) -> Assessment:
    """Read the picture and check every claim of the prompt on it."""
    return Assessment.of(prompt.claims, read(image))


def read(image: Image.Image) -> tuple[Seen, ...]:
    """The things in a picture, row by row as their centers lie; empty if nothing stands out."""
    ndimage, _ = _scipy()
    cover_HW, color_HW = _cover(_pixels(image, ndimage))
    seen = [_seen(thing, cover_HW.shape) for thing in _things(cover_HW, color_HW, ndimage)]
    return tuple(sorted(seen, key=lambda s: (round(s.y, 2), s.x)))


def _pixels(image: Image.Image, ndimage: Any) -> Floats:
    """[H, W, 3] in 0..255 at the working size, lightly smoothed."""
    scale = _SIDE / max(image.size)
    if scale != 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.convert("RGB").resize(
            size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
        )
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    smooth: Floats = ndimage.gaussian_filter(pixels, (_BLUR, _BLUR, 0), truncate=2.0)
    return smooth


def _cover(pixels_HW3: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """How much of each pixel is covered by a thing [H, W], and the palette color that it tends to [H, W].

    The background is the median of the border; a light one is taken to be white, which undoes
    tints and dim light.
    """
    border = np.concatenate([pixels_HW3[0], pixels_HW3[-1], pixels_HW3[:, 0], pixels_HW3[:, -1]])
    background_3 = np.median(border, axis=0)
    if background_3.min() > 128:
        pixels_HW3 *= 255 / background_3
        background_3 = np.full(3, 255, np.float32)
    to_color_C3 = _palette() - background_3
    reach_C = np.maximum(np.linalg.norm(to_color_C3, axis=1), 1.0)
    along_HWC = (pixels_HW3 - background_3) @ (to_color_C3 / reach_C[:, None]).T
    along_HWC[..., reach_C < 60] = 0.0  # a color that is the background's cannot stand out
    color_HW = along_HWC.argmax(axis=2)
    return along_HWC.max(axis=2) / reach_C[color_HW], color_HW


def _things(cover_HW: Floats, color_HW: NDArray[np.intp], ndimage: Any) -> Iterator[_Thing]:
    """Each connected thing, larger than noise. One that mixes two colors is taken apart by color."""
    for cover, top, left in _islands(cover_HW, cover_HW > _FAINT, ndimage):
        inside = cover > 0
        colors = color_HW[top : top + cover.shape[0], left : left + cover.shape[1]]
        votes = np.bincount(colors[cover > _SOLID * _full(cover)], minlength=len(PALETTE))
        major = np.flatnonzero(votes > _MIXED * votes.sum())
        if len(major) <= 1:
            yield _Thing(cover=cover, color=int(votes.argmax()), top=top, left=left)
            continue
        for color in major:
            for part, down, right in _islands(cover, inside & (colors == color), ndimage):
                yield _Thing(cover=part, color=int(color), top=top + down, left=left + right)


def _islands(cover: Floats, mask: Bools, ndimage: Any) -> Iterator[tuple[Floats, int, int]]:
    """Each connected part of a mask, if larger than noise: its cover (0 outside it), top and left."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    for number, where in enumerate(ndimage.find_objects(labels), 1):
        part = labels[where] == number
        if part.sum() >= _SMALLEST * _SIDE**2:
            yield np.where(part, cover[where], 0), where[0].start, where[1].start


def _seen(thing: _Thing, size: tuple[int, int]) -> Seen:
    """Name a thing; `size` is that of the picture, height first."""
    ndimage, _ = _scipy()
    y, x = ndimage.center_of_mass(thing.cover)
    return Seen(
        kind=_kind(thing.cover),
        color=tuple(PALETTE)[thing.color],
        x=(thing.left + x + 0.5) / size[1],
        y=(thing.top + y + 0.5) / size[0],
    )


def _kind(cover: Floats) -> str:
    """The kind of one thing, by two ratios that do not change as it is moved, scaled or turned.

    A star fills little of its convex hull. Of the smallest rectangle around it, the hull of a square
    fills 1, of a circle pi/4 and of a triangle 1/2; few pixels and blur raise these by up to 0.2. A
    blurred star fills more of its hull, but its hull is wider than a triangle's.
    """
    ndimage, spatial = _scipy()
    fine = ndimage.zoom(np.pad(cover, 1), _ZOOM, order=1) > _OUTLINE * _full(cover)
    hull = spatial.ConvexHull(_outline(fine))
    corners = hull.points[hull.vertices]
    # A hull through pixel centers lacks half a pixel all around; in 2-D `area` is the perimeter.
    hull_area = hull.volume + hull.area / 2 + 1
    fills = hull_area / _smallest_rectangle(corners)
    like_blurred_star = _BLURRED_STAR_FILLS[0] < fills < _BLURRED_STAR_FILLS[1]
    if fine.sum() < hull_area * (_BLURRED_STAR_HULL if like_blurred_star else _STAR_HULL):
        return "star"
    return "triangle" if fills < _TRIANGLE_FILLS else "circle" if fills < _CIRCLE_FILLS else "square"


def _full(cover: Floats) -> float:
    """What counts as fully covered in one thing: less than 1 if its color is paler than the palette's."""
    return float(np.percentile(cover[cover > 0], 75))


def _outline(mask: Bools) -> NDArray[np.float64]:
    """The first and the last pixel of each row of a mask, as (x, y) [N, 2]: all that a hull needs."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask.argmax(axis=1)[rows]
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)[rows]
    return np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)]).astype(np.float64)


def _smallest_rectangle(corners: NDArray[np.float64]) -> float:
    """The area, in pixels, of the smallest rectangle around a convex polygon: it lies along one side."""
    sides = np.roll(corners, -1, axis=0) - corners
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    along = np.ptp(corners @ sides.T, axis=0)
    across = np.ptp(corners @ np.stack([-sides[:, 1], sides[:, 0]]), axis=0)
    return float(((along + 1) * (across + 1)).min())


@cache
def _palette() -> Floats:
    return np.array(list(PALETTE.values()), dtype=np.float32)


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import ndimage, spatial
    except ImportError as error:
        raise missing_extra("scipy", "data") from error
    return ndimage, spatial
