"""The protocol of whatever judges groups, a fake that satisfies it, and the check of its answers."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from prefrm.errors import ProtocolError
from prefrm.winmatrix.group import Group
from prefrm.winmatrix.matrix import WinMatrix

__all__ = ["FakeScorer", "Scorer", "check_answer"]


@runtime_checkable
class Scorer(Protocol):
    """Anything that judges groups: the local engine, a remote client, `FakeScorer`."""

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises `ScoringError` when it cannot answer at all."""
        ...


class FakeScorer:
    """A scorer without a model, for tests and examples: Bradley-Terry over a utility that you supply.

    Args:
        utility: maps (prompt, encoded image) to a real number; candidate i beats j with probability
            sigmoid(utility_i - utility_j). A `ValueError` that it raises makes the candidate missing.
        first_bonus: log-odds that the candidate shown first gains; it cancels in p and shows in order_gap.
    """

    def __init__(self, utility: Callable[[str, bytes], float], *, first_bonus: float = 0.0) -> None:
        self._utility = utility
        self._first_bonus = first_bonus

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> WinMatrix:
        judged = [self._judge(group.prompt, image) for image in group.images]
        u = np.array([utility for utility, _ in judged])
        logits = u[:, None] - u[None, :] + self._first_bonus
        return WinMatrix.from_order_logits(logits, errors=[error for _, error in judged])

    def _judge(self, prompt: str, image: bytes | None) -> tuple[float, str]:
        if not image:
            return math.nan, "the candidate is missing"
        try:
            utility = self._utility(prompt, image)
        except ValueError as error:
            return math.nan, str(error)
        return (utility, "") if math.isfinite(utility) else (math.nan, f"the utility is {utility}")


def check_answer(matrices: Sequence[WinMatrix], groups: Sequence[Group]) -> None:
    """Raise `ProtocolError` unless a scorer gave each group one matrix, of its size."""
    received, wanted = [matrix.size for matrix in matrices], [group.size for group in groups]
    if received != wanted:
        raise ProtocolError(
            f"the scorer was given groups of {wanted} candidates and answered with matrices of {received}"
        )
