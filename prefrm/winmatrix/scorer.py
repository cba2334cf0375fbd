"""The scorer protocol, a fake scorer, the check of answers, and scoring within the device's memory."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from prefrm.errors import OutOfMemoryError, ProtocolError
from prefrm.winmatrix.group import Candidate, Group
from prefrm.winmatrix.inputs import EVERYTHING, Inputs, check_groups
from prefrm.winmatrix.matrix import WinMatrix

__all__ = [
    "ConcurrentScorer",
    "CostedScorer",
    "FakeScorer",
    "IdentifiedScorer",
    "Outcome",
    "Scorer",
    "as_matrix",
    "check_answer",
    "score_all",
    "score_each",
    "score_readable",
    "with_refusals",
]

logger = logging.getLogger(__name__)

Outcome = WinMatrix | OutOfMemoryError
"""Of one group: its matrix, or the error of a group for which alone the device's memory does not suffice."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that judges groups: the local engine, a remote client, `FakeScorer`."""

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises `ScoringError` when it cannot answer at all."""
        ...


@runtime_checkable
class ConcurrentScorer(Scorer, Protocol):
    """A scorer whose `score` gains from several calls at once, each from a thread of its own."""

    @property
    def concurrency(self) -> int:
        """How many calls keep it busy."""
        ...


@runtime_checkable
class CostedScorer(Scorer, Protocol):
    """A scorer that estimates what groups cost."""

    def cost(self, group: Group) -> int:
        """Of a group, at least 1. Cheap, and safe in another thread than that of `score`."""
        ...

    @property
    def call_cost(self) -> int:
        """What groups of one call need to cost; more of them at once are not quicker."""
        ...


@runtime_checkable
class IdentifiedScorer(Scorer, Protocol):
    """A scorer that says which judge it is, wherever it runs: what `prefrm.scorers.open_scorer` opens."""

    def identity(self) -> str:
        """What tells its answers from those of another judge, such as the digest of a bundle."""
        ...


class FakeScorer:
    """A scorer without a model, for tests and examples: Bradley-Terry over a utility that you supply.

    Args:
        utility: maps (prompt, candidate) to a real number; candidate i beats j with probability
            sigmoid(utility_i - utility_j). A `ValueError` that it raises makes the candidate missing.
        first_bonus: log-odds that the candidate shown first gains; it cancels in p and shows in order_gap.
    """

    def __init__(self, utility: Callable[[str, Any], float], *, first_bonus: float = 0.0) -> None:
        self._utility = utility
        self._first_bonus = first_bonus

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order, of any kind, context and criterion."""
        return [self._score(group) for group in check_groups(groups)]

    def inputs(self) -> Inputs:
        """Everything that a group has; the utility is told of the prompt and the candidate alone."""
        return EVERYTHING

    def _score(self, group: Group) -> WinMatrix:
        judged = [self._judge(group.prompt, candidate) for candidate in group.candidates]
        u = np.array([utility for utility, _ in judged])
        logits = u[:, None] - u[None, :] + self._first_bonus
        return WinMatrix.from_order_logits(logits, errors=[error for _, error in judged])

    def _judge(self, prompt: str, candidate: Candidate) -> tuple[float, str]:
        if not candidate:
            return math.nan, "the candidate is missing"
        try:
            utility = self._utility(prompt, candidate)
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


def score_each(scorer: Scorer, groups: Sequence[Group]) -> list[Outcome]:
    """The outcome of each group; a call that exceeds the device's memory is halved until its parts fit.

    Raises:
        ProtocolError: the scorer did not answer with one matrix for each group.
        Exception: what the scorer raises, but for `OutOfMemoryError`.
    """
    try:
        matrices = scorer.score(groups)
    except OutOfMemoryError as error:
        if len(groups) == 1:
            return [OutOfMemoryError(str(error))]
        reason = str(error)
    else:
        check_answer(matrices, groups)
        return list(matrices)
    # Here and not above: while an error is handled, it keeps in memory what could not be finished.
    logger.warning("a batch of %d groups is halved: %s", len(groups), reason)
    half = len(groups) // 2
    return score_each(scorer, groups[:half]) + score_each(scorer, groups[half:])


def score_all(scorer: Scorer, groups: Sequence[Group]) -> list[WinMatrix]:
    """One matrix for each group, in order, as a remote scorer gives them: a refused group is not judged.

    That is one for which alone the device's memory does not suffice. Raises as `score_each`.
    """
    outcomes = score_each(scorer, groups) if groups else []
    return [as_matrix(outcome, group) for outcome, group in zip(outcomes, groups, strict=True)]


def as_matrix(outcome: Outcome, group: Group) -> WinMatrix:
    """The outcome's matrix; of an error, one in which nothing was judged, with the reason."""
    if isinstance(outcome, WinMatrix):
        return outcome
    return WinMatrix.missing([f"the group cannot be scored: {outcome}"] * group.size)


def score_readable(
    groups: Sequence[Group],
    refusals: Sequence[str],
    score: Callable[[list[Group]], Iterable[WinMatrix]],
) -> list[WinMatrix]:
    """`with_refusals`, where `score` is given the groups without a refusal, and not called for none."""
    readable = [group for group, refusal in zip(groups, refusals, strict=True) if not refusal]
    return with_refusals(groups, refusals, score(readable) if readable else ())


def with_refusals(
    groups: Sequence[Group], refusals: Sequence[str], matrices: Iterable[WinMatrix]
) -> list[WinMatrix]:
    """The matrices of all groups, from those of the groups without a refusal, in order.

    In the matrix of a refused group nothing was judged, and the refusal is each candidate's reason.
    """
    judged = iter(matrices)
    return [
        WinMatrix.missing([refusal] * group.size) if refusal else next(judged)
        for group, refusal in zip(groups, refusals, strict=True)
    ]
