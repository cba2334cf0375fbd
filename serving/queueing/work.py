"""Requests while they wait and are scored: what they cost, whose groups had their turn, and their answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prefrm.errors import PrefrmError
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import ExpiredError

__all__ = ["Batch", "Scored", "Work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The matrices of a request's groups, in order, and what they took.

    Attributes:
        cost: tokens, as estimated.
        queue_s: seconds until its last group's turn.
        compute_s: seconds of the batches that had groups of it.
    """

    matrices: list[WinMatrix]
    cost: int
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False, kw_only=True)
class Work:
    """One request: `taken` of its groups have had their turn, `matrices` are there for some of them."""

    groups: Sequence[Group]
    costs: list[int]
    arrived: float
    expires: float
    answer: asyncio.Future[Scored]
    taken: int = 0
    last_turn: float = 0.0
    compute_s: float = 0.0
    matrices: list[WinMatrix | None]
    missing: int

    @property
    def waiting_cost(self) -> int:
        """Of the groups that still wait for their turn."""
        return sum(self.costs[self.taken :])

    def next_cost(self) -> int | None:
        """What the group whose turn comes next costs; None if there is none or nobody waits for it."""
        return None if self.answer.done() or self.taken == len(self.groups) else self.costs[self.taken]

    def place(self, n: int, matrix: WinMatrix) -> None:
        """Take the matrix of one of its groups, and answer with the last."""
        if self.answer.done():
            return
        self.matrices[n] = matrix
        self.missing -= 1
        if not self.missing:
            self.answer.set_result(
                Scored(
                    matrices=[matrix for matrix in self.matrices if matrix is not None],
                    cost=sum(self.costs),
                    queue_s=self.last_turn - self.arrived,
                    compute_s=self.compute_s,
                )
            )

    def expire(self) -> None:
        """Answer that its deadline passed, unless it was answered."""
        self.fail(ExpiredError("the request's deadline passed before its answer was there"))

    def fail(self, error: PrefrmError) -> None:
        """Answer with an error, unless it was answered."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Groups that are scored together: each by its request and its place in it."""

    turns: list[tuple[Work, int]]
    groups: list[Group]
    cost: int
