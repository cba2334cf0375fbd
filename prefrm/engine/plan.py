"""What an engine must compute for one group: which images, which ordered pairs, in which order.

Everything is planned over the group's distinct images in the order of their digests, so neither the
order of the candidates nor anything outside the group has a say in what is computed. No torch.

Shapes: K candidates, U distinct readable images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrm.media import digest
from prefrm.winmatrix import Group

__all__ = ["GroupPlan", "Pair", "plan_group", "runs_of_rows"]

Pair = tuple[str, str]
"""Two images by their digests, in the order shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """The distinct images of a group and where they stand.

    Attributes:
        images: encoded bytes of each distinct image, by digest, in ascending order of the digests.
        places: length K; each candidate's digest, or None if the candidate is missing.
    """

    images: dict[str, bytes]
    places: tuple[str | None, ...]

    def pairs(self, readable: Sequence[str]) -> list[tuple[str, str]]:
        """Every ordered pair of readable images that stands for at least one pair of candidates.

        An image is paired with itself only if several candidates have it.
        """
        return [(a, b) for a in readable for b in readable if a != b or self.places.count(a) > 1]

    def spread(self, log_odds: dict[tuple[str, str], float]) -> npt.NDArray[np.float64]:
        """[K, K] log-odds of the candidates from those of the distinct images; NaN where there are none."""
        rows = [
            [log_odds.get((a, b), np.nan) if a and b else np.nan for b in self.places] for a in self.places
        ]
        return np.array(rows, dtype=np.float64)


def plan_group(group: Group) -> GroupPlan:
    """The plan of a group; an empty image counts as missing."""
    places = tuple(digest(image) if image else None for image in group.images)
    found = {key: image for key, image in zip(places, group.images, strict=True) if key and image}
    return GroupPlan(images=dict(sorted(found.items())), places=places)


def runs_of_rows(lengths: Sequence[int], tokens: int) -> Iterator[range]:
    """Rows of those lengths in runs that, padded to their longest, have at most `tokens`, or one row."""
    start, longest = 0, 0
    for n, length in enumerate(lengths):
        longest = max(longest, length)
        if n > start and (n + 1 - start) * longest > tokens:
            yield range(start, n)
            start, longest = n, length
    if start < len(lengths):
        yield range(start, len(lengths))
