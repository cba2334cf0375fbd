"""What the rewards of trainers that await theirs ask."""

from collections.abc import Sequence
from typing import Protocol

from prefrm.winmatrix import Group, WinMatrix

__all__ = ["AsyncScorer"]


class AsyncScorer(Protocol):
    """A scorer whose `score` is awaited."""

    async def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises `ScoringError` when it cannot answer at all."""
        ...
