"""Groups whose images are tiny but real, and whose first pixel row says how good they are."""

from collections.abc import Callable, Sequence

import pytest
from PIL import Image

from prefrm import media
from prefrm.records import Comparison, PreferenceGroup, comparisons_from_scores
from prefrm.winmatrix import FakeScorer


def picture(level: int) -> bytes:
    """A grey image of that level, 0 to 255."""
    return media.encode_png(Image.new("RGB", (4, 4), (level, level, level)))


def brightness(prompt: str, image: bytes) -> float:
    """A judge's utility: the image's grey level in units of 40; an unreadable image is a `ValueError`."""
    return media.decode(image).getpixel((0, 0))[0] / 40  # type: ignore[index]


@pytest.fixture
def bright_scorer() -> FakeScorer:
    """Prefers the brighter image, and by 0.5 log-odds whatever is shown first."""
    return FakeScorer(brightness, first_bonus=0.5)


@pytest.fixture
def make_group() -> Callable[..., PreferenceGroup]:
    def make(
        id: str,
        levels: Sequence[int | None],
        *,
        comparisons: tuple[Comparison, ...] | None = None,
        skill: str = "colors",
    ) -> PreferenceGroup:
        return PreferenceGroup(
            id=id,
            prompt=f"prompt of {id}",
            candidates=tuple(None if level is None else picture(level) for level in levels),
            comparisons=comparisons_from_scores(levels) if comparisons is None else comparisons,
            quality=tuple(float(level or 0) for level in levels),
            tags={"skill": skill},
        )

    return make
