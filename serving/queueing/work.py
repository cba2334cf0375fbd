"""Requests while they wait and are scored: what they cost, whose groups had their turn, and their answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from prefrm.errors import PrefrmError
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import ExpiredError
from serving.queueing.decoding import Decoding, Prepared, is_long

__all__ = ["Batch", "Estimate", "Kind", "Scored", "Work"]

Kind = Literal["direct", "short", "long"]
"""Of a request: decoded by the scorer itself, or ahead of it in the lane of short or of long groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a group costs.

    Attributes:
        cost: tokens.
        turn: of these, what the scorer's own turn costs.
        ahead: the images that are decoded ahead, which is the rest.
    """

    cost: int
    turn: int
    ahead: Sequence[Decoding] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The matrices of a request's groups, in order, and what they took.

    Attributes:
        cost: tokens, as estimated.
        queue_s: seconds until its last group's turn, in which images are decoded ahead.
        compute_s: seconds of the batches that had groups of it.
    """

    matrices: list[WinMatrix]
    cost: int
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False, kw_only=True)
class Work:
    """One request: `taken` of its groups have had their turn, `matrices` are there for some of them.

    The first `ready` groups may have their turn; the images of some of them are `prepared`.

    Attributes:
        kind: how the longest of its groups is decoded.
    """

    groups: Sequence[Group]
    estimates: Sequence[Estimate]
    arrived: float
    expires: float
    answer: asyncio.Future[Scored]
    ready: int = 0
    taken: int = 0
    last_turn: float = 0.0
    compute_s: float = 0.0
    matrices: list[WinMatrix | None]
    missing: int
    prepared: dict[int, Prepared] = field(default_factory=dict)
    kind: Kind = field(init=False)

    def __post_init__(self) -> None:
        # Once, since each turn asks for it, and a request has up to hundreds of groups.
        self.kind = _kind_of(self.estimates)

    @property
    def waiting_cost(self) -> int:
        """Of the groups that still wait for their turn."""
        return sum(estimate.cost for estimate in self.estimates[self.taken :])

    def next_cost(self) -> int | None:
        """What the turn of its next group costs; None if none is ready or nobody waits for it."""
        return None if self.answer.done() or self.taken == self.ready else self.estimates[self.taken].turn

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
                    cost=sum(estimate.cost for estimate in self.estimates),
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
    prepared: list[Prepared]


def _kind_of(estimates: Sequence[Estimate]) -> Kind:
    if any(is_long(estimate.ahead) for estimate in estimates):
        return "long"
    return "short" if any(estimate.ahead for estimate in estimates) else "direct"
