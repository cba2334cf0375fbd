"""Several win matrices of one group as one: of several judges, or of one judge by several criteria.

Shapes: M matrices, K candidates, T steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError
from prefrm.rewards.numbers import at_steps
from prefrm.winmatrix import Bools, Doubles, Floats, Group, WinMatrix
from prefrm.winmatrix.probabilities import logit, win_probabilities

__all__ = ["Combination", "Combine", "Criteria", "criterion_name"]

Combine = Literal["mean", "vote", "worst", "uncertainty", "lexicographic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A rule by which several matrices of one group become one.

    Each matrix's log-odds (both presentation orders merged, calibrated) become one number for each pair:

    - "mean": their weighted mean.
    - "vote": a weighted majority vote. P(i beats j) is the share of the weight that prefers i; a matrix with
      p = 0.5 gives half to each.
    - "worst": those of the least sure matrix if all agree who wins, and 0 if they do not. The pairwise form
      of worst-case optimization (Coste et al., arXiv 2310.02743).
    - "uncertainty": the weighted mean, moved towards 0 by `penalty` standard deviations, at most to 0
      (uncertainty-weighted optimization, ibid.).
    - "lexicographic": those of the first matrix, in their order, whose |2 p - 1| exceeds `margin`; of the
      last one where none does (a lexicographic semiorder: Tversky, "Intransitivity of preferences", 1969).

    A pair is judged where every matrix has it judged, and known where every matrix knows it: a mean over
    those that do would compare pairs by different judges. Reasons name the matrix that they come from.
    `order_gap` is the weighted mean over the matrices that have one; `tie` is the weighted mean under "mean"
    if all matrices have one, and NaN otherwise. `spread` is the weighted standard deviation of p, and
    `label_mass` the least of a matrix. A single matrix stays as it is, without a spread.

    Attributes:
        rule: one of `Combine`.
        weights: of the matrices, by name, >= 0; those that are not named count 1. A matrix of weight 0 is
            left out, as if it were not there.
        penalty: of "uncertainty", >= 0.
        margin: of "lexicographic", in [0, 1).

    Raises:
        ConfigError: a setting is out of range.
    """

    rule: Combine = "mean"
    weights: Mapping[str, float] = field(default_factory=dict)
    penalty: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(Combine):
            raise ConfigError(
                f"combine must be one of {', '.join(get_args(Combine))}; received {self.rule!r}"
            )
        if not 0 <= self.penalty < float("inf"):
            raise ConfigError(f"penalty must be >= 0 and finite; received {self.penalty}")
        if not 0 <= self.margin < 1:
            raise ConfigError(f"margin must be in [0, 1); received {self.margin}")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"the weight of {name!r} must be >= 0 and finite; received {weight}")

    def describe(self) -> str:
        """The rule with its parameter, without the weights."""
        parameters = {"uncertainty": f" {self.penalty:g}", "lexicographic": f" {self.margin:g}"}
        return f"{self.rule}{parameters.get(self.rule, '')}"

    def combined(self, matrices: Mapping[str, WinMatrix]) -> WinMatrix:
        """The matrix that the rule makes of the group's matrices.

        Args:
            matrices: at least one, of one group, by name; their order counts for "lexicographic" alone.

        Raises:
            ConfigError: weights name no matrix, none has a positive weight, or sizes differ.
        """
        if unknown := self.weights.keys() - matrices.keys():
            raise ConfigError(f"weights name {sorted(unknown)}; the matrices are {list(matrices)}")
        weighted = {name: self.weights.get(name, 1.0) for name in matrices}
        used = {name: matrix for name, matrix in matrices.items() if weighted[name] > 0}
        if not used:
            raise ConfigError(f"a matrix with a positive weight is needed; received weights {weighted}")
        if len(sizes := {matrix.size for matrix in used.values()}) > 1:
            raise ConfigError(f"matrices of one group have one size; received sizes {sorted(sizes)}")
        weights_M = np.array([weighted[name] for name in used], dtype=np.float64)
        return self._of(used, weights_M / weights_M.sum())

    def by_step(
        self, matrices: Mapping[str, WinMatrix], weights: Mapping[str, Sequence[float]], steps: int
    ) -> list[WinMatrix]:
        """The matrix of each of T steps of a rollout, whose weights differ.

        Args:
            matrices: as of `combined`.
            weights: by name, weights of equal parts of the rollout, as `AdvantageChain.objective_weights`.
                `weights` of the rule itself do not count.
            steps: T.

        Raises:
            ConfigError: as `combined`, or the rows do not have the matrices' names.
        """
        if weights.keys() != matrices.keys():
            raise ConfigError(f"weights by step are of {sorted(weights)}; the matrices are {list(matrices)}")
        at_MT = at_steps(list(weights.values()), steps)
        found: dict[tuple[float, ...], WinMatrix] = {}
        for row in map(tuple, at_MT.T.tolist()):
            if row not in found:
                step = replace(self, weights=dict(zip(weights, row, strict=True)))
                found[row] = step.combined(matrices)
        return [found[tuple(row)] for row in at_MT.T.tolist()]

    def _of(self, named: Mapping[str, WinMatrix], weights_M: Doubles) -> WinMatrix:
        matrices = list(named.values())
        if len(matrices) == 1:
            return matrices[0]
        valid_KK = np.all([matrix.valid for matrix in matrices], axis=0)
        known_KK = np.all([matrix.known for matrix in matrices], axis=0)
        p_MKK = np.stack([matrix.p for matrix in matrices]).astype(np.float64)
        # What is not known is put back at the end: a NaN would spread.
        p_MKK = np.where(known_KK, p_MKK, 0.5)
        gap_KK = _mean_of_known(np.stack([matrix.order_gap for matrix in matrices]), weights_M)
        p_KK = self._rule(p_MKK, weights_M)
        return WinMatrix(
            p=_where(known_KK, p_KK),
            valid=valid_KK,
            tie=_where(valid_KK, self._tie(matrices, p_KK, weights_M)),
            order_gap=_where(valid_KK, gap_KK),
            spread=_where(valid_KK, _spread(p_MKK, weights_M)),
            label_mass=_least_mass(matrices),
            errors=_errors(named),
            pair_errors=_pair_errors(named),
        )

    def _rule(self, p_MKK: Doubles, weights_M: Doubles) -> Floats:
        if self.rule == "vote":
            return _complemented(_mean((np.sign(p_MKK - 0.5) + 1) / 2, weights_M))
        if self.rule == "lexicographic":
            # argmax of booleans is the first that decides; the last one always does.
            decides_MKK = np.abs(2 * p_MKK - 1) > self.margin
            decides_MKK[-1] = True
            first_KK = decides_MKK.argmax(axis=0)
            return np.asarray(np.take_along_axis(p_MKK, first_KK[None], axis=0)[0], dtype=np.float32)
        z_MKK = logit(p_MKK)
        if self.rule == "worst":
            # One of the two is 0 unless the matrices disagree, when both are.
            return win_probabilities(np.maximum(z_MKK.min(axis=0), 0) + np.minimum(z_MKK.max(axis=0), 0))
        mean_KK = _mean(z_MKK, weights_M)
        if self.rule == "uncertainty":
            deviation_KK = np.sqrt(_mean((z_MKK - mean_KK) ** 2, weights_M))
            size_KK = np.maximum(np.abs(mean_KK) - self.penalty * deviation_KK, 0)
            mean_KK = np.copysign(size_KK, mean_KK)
        return win_probabilities(mean_KK)

    def _tie(self, matrices: Sequence[WinMatrix], p_KK: Floats, weights_M: Doubles) -> Doubles:
        """P(tie), at most twice the smaller of p and 1 - p; NaN unless every matrix has one."""
        if self.rule != "mean":
            return np.full(p_KK.shape, np.nan)
        tie_KK = _mean(np.stack([matrix.tie for matrix in matrices]), weights_M)
        return np.asarray(np.minimum(tie_KK, 2 * np.minimum(p_KK, 1 - p_KK)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Several criteria by which one judge compares a group, and how the matrices become one.

    A group is asked once for each criterion. The groups of one call differ in their criterion alone, so an
    engine encodes their images once.

    Attributes:
        names: the criteria, at least one, each once; "" is overall preference.
        combination: its weights are by criterion.

    Raises:
        ConfigError: there is no criterion, two have one name (`criterion_name`), or the weights name none of
            them or are all 0.
    """

    names: tuple[str, ...]
    combination: Combination = field(default_factory=Combination)

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("criteria are empty; name at least one")
        shown = [criterion_name(name) for name in self.names]
        if twice := [name for name in shown if shown.count(name) > 1]:
            raise ConfigError(f"criteria have {twice[0]!r} twice; give it a weight instead")
        if unknown := self.combination.weights.keys() - set(self.names):
            raise ConfigError(f"weights name {sorted(unknown)}; the criteria are {list(self.names)}")
        if not any(self.combination.weights.get(name, 1.0) for name in self.names):
            raise ConfigError(f"every criterion has weight 0, of {shown}; give one a positive weight")

    @classmethod
    def of(cls, criteria: "Criteria | Sequence[str] | str") -> "Criteria":
        """Criteria as they are, or names with the rule "mean" and equal weights."""
        if isinstance(criteria, Criteria):
            return criteria
        return cls(names=(criteria,) if isinstance(criteria, str) else tuple(criteria))

    def describe(self) -> str:
        """The criteria with their weights and the rule, on one line."""
        weights = self.combination.weights
        named = ", ".join(f"{criterion_name(name)} x {weights.get(name, 1.0):g}" for name in self.names)
        return named if len(self.names) == 1 else f"{self.combination.describe()} of {named}"

    def groups(self, groups: Iterable[Group]) -> list[Group]:
        """Each group once for each criterion, in order: what a scorer is asked."""
        return [replace(group, criterion=name) for group in groups for name in self.names]

    def answers(self, matrices: Sequence[WinMatrix]) -> list[dict[str, WinMatrix]]:
        """For each group its matrices by criterion, from the answer to `groups`."""
        count = len(self.names)
        assert len(matrices) % count == 0, "one matrix for each group and criterion"
        starts = range(0, len(matrices), count)
        return [dict(zip(self.names, matrices[n : n + count], strict=True)) for n in starts]

    def combined(self, matrices: Sequence[WinMatrix]) -> list[WinMatrix]:
        """One matrix for each group, from the answer to `groups`."""
        return [self.combination.combined(answer) for answer in self.answers(matrices)]


def criterion_name(criterion: str) -> str:
    """A criterion as a heading or a column names it."""
    return criterion or "overall"


def _mean(values_MKK: npt.NDArray[Any], weights_M: Doubles) -> Doubles:
    # Elementwise: a matrix product may round a pair and its reverse, or another place, differently.
    return np.asarray((weights_M[:, None, None] * values_MKK).sum(axis=0))


def _mean_of_known(values_MKK: Floats, weights_M: Doubles) -> Doubles:
    """The weighted mean over the matrices whose value is not NaN; NaN where there is none."""
    known_MKK = np.isfinite(values_MKK)
    weight_KK = _mean(known_MKK, weights_M)
    total_KK = _mean(np.where(known_MKK, values_MKK, 0), weights_M)
    known_KK = np.where(weight_KK > 0, weight_KK, np.nan)
    return np.asarray(total_KK / known_KK)


def _spread(p_MKK: Doubles, weights_M: Doubles) -> Doubles:
    variance_KK = _mean((p_MKK - _mean(p_MKK, weights_M)) ** 2, weights_M)
    # The same number from either side, but for rounding.
    return np.asarray(np.sqrt(np.maximum(variance_KK, variance_KK.T)))


def _errors(named: Mapping[str, WinMatrix]) -> tuple[str, ...]:
    """Why each candidate was not judged: the reasons of the matrices that have one."""
    reasons = [
        [f"{criterion_name(name)}: {reason}" if reason else "" for reason in matrix.errors]
        for name, matrix in named.items()
    ]
    return tuple("; ".join(filter(None, some)) for some in zip(*reasons, strict=True))


def _pair_errors(named: Mapping[str, WinMatrix]) -> dict[tuple[int, int], str]:
    """Why pairs were not judged: as `_errors`."""
    found: dict[tuple[int, int], list[str]] = {}
    for name, matrix in named.items():
        for pair, reason in matrix.pair_errors.items():
            found.setdefault(pair, []).append(f"{criterion_name(name)}: {reason}")
    return {pair: "; ".join(reasons) for pair, reasons in found.items()}


def _least_mass(matrices: Sequence[WinMatrix]) -> Floats | None:
    """Of the matrices that have one: NaN for a pair of which none does, None without such a matrix."""
    found = [matrix.label_mass for matrix in matrices if matrix.label_mass is not None]
    return np.asarray(np.fmin.reduce(found)) if found else None


def _complemented(share_KK: Doubles) -> Floats:
    """Shares as float32 p with p + p.T exactly 1: the larger side is kept, and the other completes it."""
    wins_KK = share_KK >= share_KK.T
    high_KK = np.maximum(np.maximum(share_KK, share_KK.T).astype(np.float32), np.float32(0.5))
    return np.where(wins_KK, high_KK, np.float32(1) - high_KK)


def _where(valid_KK: Bools, values_KK: npt.NDArray[np.floating]) -> Floats:
    return np.where(valid_KK, values_KK, np.nan).astype(np.float32)
