"""From the readings of a group's questions to its win matrix, and what tells how far to trust it.

Shapes: K candidates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from prefrm.scorers.chat.reading import Reading
from prefrm.scorers.chat.showing import Key, ShownGroup
from prefrm.winmatrix import Doubles, WinMatrix

__all__ = ["ChatReport", "merged_log_odds", "report_of_pairs", "report_of_singles"]

Readings = Mapping[Key, Reading]

NOT_ASKED = Reading(value=np.nan)
SELF = Reading(value=0.0, tie=1.0)
"""A candidate against itself or a copy of itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChatReport:
    """The matrix of a group, and what tells how far to trust it; NaN where not known.

    Attributes:
        matrix: of the group.
        mass: float64 [K, K]; probability of all labels together, with candidate i shown first. Of a judge
            that rates candidates alone, the smaller one of the two.
        agreement: float64 [K, K]; share of the readable samples that have the outcome of most, likewise.
        unread: float64 [K, K]; share of the samples that could not be read; of a judge that rates candidates
            alone, the larger one of the two.
        dimensions: the matrix of each dimension that the judge states.
    """

    matrix: WinMatrix
    mass: Doubles
    agreement: Doubles
    unread: Doubles
    dimensions: Mapping[str, WinMatrix]


def merged_log_odds(group: ShownGroup, readings: Readings, i: int, j: int) -> float:
    """Log-odds that candidate i beats candidate j, of both presentation orders; NaN if one was not read."""
    there, back = (_of_order(group, readings, *order).value for order in ((i, j), (j, i)))
    return (there - back) / 2


def report_of_pairs(group: ShownGroup, readings: Readings, *, ties: bool) -> ChatReport:
    """The report of a judge that compares candidates; `ties`: it may answer that neither is better."""
    places = range(len(group.keys))
    grid = [[_of_order(group, readings, i, j) for j in places] for i in places]
    tie = None
    if ties:
        tie = _filled(grid, lambda one: np.nan if one.tie is None else one.tie)
        tie = (tie + tie.T) / 2
    reasons = {
        (i, j): grid[i][j].reason or grid[j][i].reason
        for i in places
        for j in places[i + 1 :]
        if group.keys[i] and group.keys[j]
    }
    matrix = WinMatrix.from_order_logits(
        _filled(grid, lambda one: one.value),
        errors=group.errors,
        tie=tie,
        label_mass=_least_mass(_filled(grid, lambda one: one.mass)),
        pair_errors={pair: reason for pair, reason in reasons.items() if reason},
    )
    names = dict.fromkeys(name for row in grid for one in row for name in one.scores)
    return ChatReport(
        matrix=matrix,
        mass=_filled(grid, lambda one: one.mass),
        agreement=_filled(grid, lambda one: one.agreement),
        unread=_filled(grid, lambda one: one.unread),
        dimensions={name: _dimension(name, grid, group.errors) for name in names},
    )


def report_of_singles(group: ShownGroup, readings: Readings) -> ChatReport:
    """The report of a judge that rates each candidate alone: log-odds are differences of utilities."""
    found = [readings[(key,)] if key else NOT_ASKED for key in group.keys]
    value, mass, agreement, unread = (
        np.array([getattr(one, name) for one in found]) for name in ("value", "mass", "agreement", "unread")
    )
    errors = [error or one.reason for error, one in zip(group.errors, found, strict=True)]
    mass_KK = np.minimum.outer(mass, mass)
    matrix = WinMatrix.from_order_logits(
        value[:, None] - value, errors=errors, order_free=True, label_mass=_least_mass(mass_KK)
    )
    return ChatReport(
        matrix=matrix,
        mass=mass_KK,
        agreement=np.minimum.outer(agreement, agreement),
        unread=np.maximum.outer(unread, unread),
        dimensions={},
    )


def _least_mass(mass_KK: Doubles) -> Doubles | None:
    """Of both presentation orders, as a matrix has it; None where no mass was read."""
    if np.isnan(mass_KK).all():
        return None
    return np.minimum(np.minimum(mass_KK, mass_KK.T), 1.0)


def _of_order(group: ShownGroup, readings: Readings, i: int, j: int) -> Reading:
    first, second = group.keys[i], group.keys[j]
    return SELF if first == second != "" else readings.get((first, second), NOT_ASKED)


def _dimension(name: str, grid: list[list[Reading]], errors: tuple[str, ...]) -> WinMatrix:
    return WinMatrix.from_order_logits(
        _filled(grid, lambda one: 0.0 if one is SELF else one.scores.get(name, np.nan)), errors=errors
    )


def _filled(grid: list[list[Reading]], number: Callable[[Reading], float]) -> Doubles:
    return np.array([[number(one) for one in row] for row in grid], dtype=np.float64)
