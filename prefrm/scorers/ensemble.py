"""An ensemble: several scorers whose matrices become one, with the spread among them beside it.

Shapes: M members, K candidates.
"""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.scorers.files import Combine
from prefrm.winmatrix import (
    Bools,
    CalibrationMap,
    ConcurrentScorer,
    Floats,
    Group,
    IdentifiedScorer,
    Inputs,
    WinMatrix,
    check_answer,
    check_groups,
    inputs_of,
)
from prefrm.winmatrix.probabilities import logit, win_probabilities

__all__ = ["Ensemble", "Member"]

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A scorer of an ensemble, its name for reasons and its weight.

    Raises:
        ConfigError: `weight` is not positive and finite.
    """

    name: str
    scorer: IdentifiedScorer
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight of {self.name} must be positive and finite; received {self.weight}")


class Ensemble:
    """Several scorers as one; satisfies `prefrm.winmatrix.IdentifiedScorer`.

    Each member's log-odds (both presentation orders merged, its own calibration applied) become one number
    for each pair:

    - "mean": their weighted mean.
    - "vote": a weighted majority vote. P(i beats j) is the share of the weight that prefers i; a member with
      p = 0.5 gives half to each.
    - "worst": those of the least sure member if all agree who wins, and 0 if they do not. The pairwise form
      of worst-case optimization (Coste et al., arXiv 2310.02743).
    - "uncertainty": the weighted mean, moved towards 0 by `penalty` standard deviations, at most to 0
      (uncertainty-weighted optimization, ibid.).

    A pair is judged where every member judged it, and known where every member knows it: a mean over those
    that answered would compare pairs by different judges. `order_gap` is the weighted mean over the members
    that have one; `tie` is the weighted mean under "mean" if all members model ties, and NaN otherwise.
    `spread` is the weighted standard deviation of the members' p, and `label_mass` the least of a member. The
    matrix of a single member stays as it is, without a spread.

    Args:
        members: at least one.
        combine: the rule.
        penalty: of "uncertainty".
        calibration: of the combined log-odds; None leaves them as they are.

    Raises:
        ConfigError: there is no member.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        combine: Combine = "mean",
        penalty: float = 1.0,
        calibration: CalibrationMap | None = None,
    ) -> None:
        if not members:
            raise ConfigError("an ensemble has at least one member; received none")
        self.members = tuple(members)
        self.combine = combine
        self.penalty = penalty
        self.calibration = calibration
        self._weights_M = np.array([member.weight for member in members], dtype=np.float64)
        self._weights_M /= self._weights_M.sum()

    @property
    def concurrency(self) -> int:
        """How many calls at once keep every member busy."""
        scorers = [member.scorer for member in self.members]
        return max(one.concurrency if isinstance(one, ConcurrentScorer) else 1 for one in scorers)

    def identity(self) -> str:
        """The identities of the members with their weights, the rule and the calibration."""
        parts = [f"{member.scorer.identity()} x {member.weight:g}" for member in self.members]
        rule = f"{self.combine} {self.penalty:g}" if self.combine == "uncertainty" else self.combine
        whole = parts[0] if len(parts) == 1 else f"{rule} of {'; '.join(parts)}"
        return whole if self.calibration is None else f"{whole}, {self.calibration!r}"

    def inputs(self) -> Inputs:
        """What every member reads."""
        return reduce(Inputs.both, [inputs_of(member.scorer) for member in self.members])

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises what a member raises; the others do not replace it."""
        # Each member decides by itself what it reads.
        found = check_groups(groups)
        return [self._combined(matrices) for matrices in zip(*self._answers(found), strict=True)]

    def _answers(self, groups: Sequence[Group]) -> list[list[WinMatrix]]:
        """Of each member. Remote ones work while those on this machine do."""
        asks = [partial(_ask, member.scorer, groups) for member in self.members]
        remote = [isinstance(member.scorer, ConcurrentScorer) for member in self.members]
        with ThreadPoolExecutor(len(asks)) as pool:
            started = [pool.submit(ask) if far else None for ask, far in zip(asks, remote, strict=True)]
            here = [ask() if future is None else [] for ask, future in zip(asks, started, strict=True)]
            return [
                own if future is None else future.result() for own, future in zip(here, started, strict=True)
            ]

    def _combined(self, matrices: Sequence[WinMatrix]) -> WinMatrix:
        whole = matrices[0] if len(matrices) == 1 else self._joined(matrices)
        return whole if self.calibration is None else whole.calibrated(self.calibration)

    def _joined(self, matrices: Sequence[WinMatrix]) -> WinMatrix:
        p_MKK = np.stack([matrix.p for matrix in matrices]).astype(np.float64)
        valid_KK = np.logical_and.reduce([matrix.valid for matrix in matrices])
        known_KK = np.isfinite(p_MKK).all(axis=0)
        p_KK = self._rule(np.where(known_KK, p_MKK, 0.5))
        gap_KK = self._mean_of_known(np.stack([matrix.order_gap for matrix in matrices]))
        return WinMatrix(
            p=np.where(known_KK, p_KK, np.float32(np.nan)),
            valid=valid_KK,
            tie=_where(valid_KK, self._tie(matrices, p_KK)),
            order_gap=_where(valid_KK, gap_KK),
            spread=_where(valid_KK, self._spread(p_MKK)),
            label_mass=_least_mass(matrices),
            errors=self._errors(matrices),
            pair_errors=self._pair_errors(matrices),
        )

    def _rule(self, p_MKK: Doubles) -> Floats:
        if self.combine == "vote":
            return _complemented(self._mean((np.sign(p_MKK - 0.5) + 1) / 2))
        z_MKK = logit(p_MKK)
        if self.combine == "worst":
            # One of the two is 0 unless members disagree, when both are.
            return win_probabilities(np.maximum(z_MKK.min(axis=0), 0) + np.minimum(z_MKK.max(axis=0), 0))
        mean_KK = self._mean(z_MKK)
        if self.combine == "uncertainty":
            deviation_KK = np.sqrt(self._mean((z_MKK - mean_KK) ** 2))
            size_KK = np.maximum(np.abs(mean_KK) - self.penalty * deviation_KK, 0)
            mean_KK = np.copysign(size_KK, mean_KK)
        return win_probabilities(mean_KK)

    def _tie(self, matrices: Sequence[WinMatrix], p_KK: Floats) -> Doubles:
        """P(tie), at most twice the smaller of p and 1 - p; NaN unless every member models ties."""
        if self.combine != "mean":
            return np.full(p_KK.shape, np.nan)
        tie_KK = self._mean(np.stack([matrix.tie for matrix in matrices]))
        return np.asarray(np.minimum(tie_KK, 2 * np.minimum(p_KK, 1 - p_KK)))

    def _mean(self, values_MKK: npt.NDArray[Any]) -> Doubles:
        # Elementwise: a matrix product may round a pair and its reverse, or another place, differently.
        return np.asarray((self._weights_M[:, None, None] * values_MKK).sum(axis=0))

    def _mean_of_known(self, values_MKK: Floats) -> Doubles:
        """The weighted mean over the members whose value is not NaN; NaN where there is none."""
        known_MKK = np.isfinite(values_MKK)
        weight_KK = self._mean(known_MKK)
        total_KK = self._mean(np.where(known_MKK, values_MKK, 0))
        known_KK = np.where(weight_KK > 0, weight_KK, np.nan)
        return np.asarray(total_KK / known_KK)

    def _spread(self, p_MKK: Doubles) -> Doubles:
        variance_KK = self._mean((p_MKK - self._mean(p_MKK)) ** 2)
        # The same number from either side, but for rounding.
        return np.asarray(np.sqrt(np.maximum(variance_KK, variance_KK.T)))

    def _errors(self, matrices: Sequence[WinMatrix]) -> tuple[str, ...]:
        """Why each candidate was not judged: the reasons of the members that have one."""
        named = [
            [f"{member.name}: {reason}" if reason else "" for reason in matrix.errors]
            for member, matrix in zip(self.members, matrices, strict=True)
        ]
        return tuple("; ".join(filter(None, reasons)) for reasons in zip(*named, strict=True))

    def _pair_errors(self, matrices: Sequence[WinMatrix]) -> dict[tuple[int, int], str]:
        """Why pairs were not judged: as `_errors`."""
        found: dict[tuple[int, int], list[str]] = {}
        for member, matrix in zip(self.members, matrices, strict=True):
            for pair, reason in matrix.pair_errors.items():
                found.setdefault(pair, []).append(f"{member.name}: {reason}")
        return {pair: "; ".join(reasons) for pair, reasons in found.items()}


def _ask(scorer: IdentifiedScorer, groups: Sequence[Group]) -> list[WinMatrix]:
    matrices = scorer.score(groups)
    check_answer(matrices, groups)
    return matrices


def _least_mass(matrices: Sequence[WinMatrix]) -> Floats | None:
    """Of the members that read one: NaN for a pair of which none did, None without such a member."""
    found = [matrix.label_mass for matrix in matrices if matrix.label_mass is not None]
    return np.asarray(np.fmin.reduce(found)) if found else None


def _complemented(share_KK: Doubles) -> Floats:
    """Shares as float32 p with p + p.T exactly 1: the larger side is kept, and the other completes it."""
    wins_KK = share_KK >= share_KK.T
    high_KK = np.maximum(np.maximum(share_KK, share_KK.T).astype(np.float32), np.float32(0.5))
    return np.where(wins_KK, high_KK, np.float32(1) - high_KK)


def _where(valid_KK: Bools, values_KK: Doubles) -> Floats:
    return np.where(valid_KK, values_KK, np.nan).astype(np.float32)
