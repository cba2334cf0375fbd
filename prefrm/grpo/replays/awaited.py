"""A scorer under adapters that await theirs."""

import asyncio
from collections.abc import Sequence

from prefrm.winmatrix import Group, Scorer, WinMatrix, score_all

__all__ = ["Awaited"]


class Awaited:
    """An `AsyncScorer` that asks a synchronous one, on a thread."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    async def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """The other's matrices."""
        return await asyncio.to_thread(score_all, self._scorer, groups)
