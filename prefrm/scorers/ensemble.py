"""An ensemble: several scorers whose matrices become one, with the spread among them beside it."""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce

from prefrm.errors import ConfigError
from prefrm.rewards import Combination, Combine
from prefrm.winmatrix import (
    EVERYTHING,
    CalibrationMap,
    ConcurrentScorer,
    Group,
    IdentifiedScorer,
    Inputs,
    WinMatrix,
    check_answer,
    check_groups,
    inputs_of,
    score_readable,
)

__all__ = ["Ensemble", "Member"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A scorer of an ensemble, its name for reasons, its weight and the criterion by which it compares.

    An empty criterion shows each group as it is.

    Raises:
        ConfigError: `weight` is not positive and finite.
    """

    name: str
    scorer: IdentifiedScorer
    weight: float = 1.0
    criterion: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight of {self.name} must be positive and finite; received {self.weight}")

    def identity(self) -> str:
        """That of the scorer, with the criterion."""
        by = f" by {self.criterion!r}" if self.criterion else ""
        return f"{self.scorer.identity()}{by}"

    def inputs(self) -> Inputs:
        """What it reads of a group before it is `shown` with its criterion."""
        return inputs_of(self.scorer).by(self.criterion)

    def shown(self, group: Group) -> Group:
        """The group as the scorer is to see it."""
        return replace(group, criterion=self.criterion) if self.criterion else group


class Ensemble:
    """Several scorers as one; satisfies `prefrm.winmatrix.IdentifiedScorer`.

    Its matrices are those of its members, combined (`prefrm.rewards.Combination`); a single member's stays as
    it is. A scorer that is a member by several criteria is called once, with the groups of all of them; a
    group that has a criterion is then refused.

    Args:
        members: at least one, each name once.
        combine: the rule.
        penalty: of "uncertainty".
        margin: of "lexicographic".
        calibration: of the combined log-odds; None leaves them as they are.

    Raises:
        ConfigError: there is no member, two have one name, or a setting is out of range.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        combine: Combine = "mean",
        penalty: float = 1.0,
        margin: float = 0.0,
        calibration: CalibrationMap | None = None,
    ) -> None:
        if not members:
            raise ConfigError("an ensemble has at least one member; received none")
        weights = {member.name: member.weight for member in members}
        if len(weights) < len(members):
            raise ConfigError(f"members of an ensemble have different names; received {list(weights)}")
        self.members = tuple(members)
        self.combination = Combination(rule=combine, weights=weights, penalty=penalty, margin=margin)
        self.calibration = calibration
        self._has_criteria = any(member.criterion for member in members)

    @property
    def concurrency(self) -> int:
        """How many calls at once keep every member busy."""
        scorers = [member.scorer for member in self.members]
        return max(one.concurrency if isinstance(one, ConcurrentScorer) else 1 for one in scorers)

    def identity(self) -> str:
        """The identities of the members with their weights, the rule and the calibration."""
        parts = [f"{member.identity()} x {member.weight:g}" for member in self.members]
        whole = parts[0] if len(parts) == 1 else f"{self.combination.describe()} of {'; '.join(parts)}"
        return whole if self.calibration is None else f"{whole}, {self.calibration!r}"

    def inputs(self) -> Inputs:
        """What every member reads; of groups without a criterion where members have their own."""
        return reduce(Inputs.both, [member.inputs() for member in self.members])

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises what a member raises; the others do not replace it."""
        # Each member decides by itself what else it reads.
        read = replace(EVERYTHING, criterion=not self._has_criteria)
        found = check_groups(groups)
        return score_readable(found, list(map(read.refusal, found)), self._score_readable)

    def _score_readable(self, groups: Sequence[Group]) -> list[WinMatrix]:
        return [self._combined(matrices) for matrices in zip(*self._answers(groups), strict=True)]

    def _answers(self, groups: Sequence[Group]) -> list[list[WinMatrix]]:
        """Of each member. Remote scorers work while those on this machine do."""
        sharing: dict[int, list[Member]] = {}
        for member in self.members:
            sharing.setdefault(id(member.scorer), []).append(member)
        asks = [partial(_ask, some, groups) for some in sharing.values()]
        remote = [isinstance(some[0].scorer, ConcurrentScorer) for some in sharing.values()]
        with ThreadPoolExecutor(len(asks)) as pool:
            started = [pool.submit(ask) if far else None for ask, far in zip(asks, remote, strict=True)]
            here = [{} if far else ask() for ask, far in zip(asks, remote, strict=True)]
            answers = [
                own if future is None else future.result() for own, future in zip(here, started, strict=True)
            ]
        named = {name: matrices for answer in answers for name, matrices in answer.items()}
        return [named[member.name] for member in self.members]

    def _combined(self, matrices: Sequence[WinMatrix]) -> WinMatrix:
        named = dict(zip((member.name for member in self.members), matrices, strict=True))
        whole = self.combination.combined(named)
        return whole if self.calibration is None else whole.calibrated(self.calibration)


def _ask(members: Sequence[Member], groups: Sequence[Group]) -> dict[str, list[WinMatrix]]:
    """The matrices of each of the members of one scorer, by the member's name."""
    asked = [member.shown(group) for group in groups for member in members]
    matrices = members[0].scorer.score(asked)
    check_answer(matrices, asked)
    return {member.name: matrices[n :: len(members)] for n, member in enumerate(members)}
