"""Rewards of samples to advantages: the chain of choices in which the published methods differ.

Numpy only, float64. Samples come with group keys, so groups may differ in size and need not be contiguous. A
reward that is missing (NaN) counts in no mean, vote or rank, and its sample has the advantage NaN.

Shapes: N samples; G groups, padded to K with NaN; M rewards; P parts of the rollout; T steps.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError, DataError
from prefrm.rewards.advantages import AdvantageRule, centered, moments
from prefrm.rewards.numbers import Numbers, at_steps, doubles
from prefrm.winmatrix import Doubles

__all__ = [
    "AdvantageChain",
    "GroupKey",
    "diversity",
    "extremes",
    "group_keys",
    "intrinsic_rewards",
    "majority",
    "members",
    "select",
]

GroupKey = Literal["prompt", "prompt_step", "prompt_seed_step"]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageChain:
    """From the rewards of groups to advantages, in this order.

    Attributes:
        signed: map each reward r, a win rate, to 2 r - 1; it then needs neither centering nor scaling.
        diversity: weight of a sample's distance to its group (`diversity`), as one more reward.
        combine: several rewards: the "sum" of the weighted rewards goes through the chain; "normalized", each
            is centered, shaped and scaled by itself and then summed with its weight; or "vote", pairs of a
            group are decided by the weighted majority of the rewards (`majority`).
        center: subtract the group's mean.
        power: sign(x) |x|^power of what is centered.
        scale: divide by the standard deviation of the "group" or of the "batch", or by nothing ("none").
        ddof: of that standard deviation: 1 is unbiased, 0 of the population.
        eps: added to it, >= 0.
        soft_clip: eta tanh(x / eta); None is off.
        clip: clamp to [-clip, clip]; None is off.
        divide: divide by this (5 with `clip` 5 gives [-1, 1]).
        keep: "all"; "positive" or "negative" zeroes the others; "best" is 1 for the best of a group and 0 for
            others; "best_worst" is 1 for the best, -1 for the worst and 0 for others, or 0 where all are
            equal.
        objective_weights: a row for each reward, in their order, of weights for equal parts of the rollout:
            advantages differ by step. Empty: the weights of the run at every step.
    """

    signed: bool = False
    diversity: float = 0.0
    combine: Literal["sum", "normalized", "vote"] = "sum"
    center: bool = True
    power: float = 1.0
    scale: Literal["group", "batch", "none"] = "group"
    ddof: Literal[0, 1] = 1
    eps: float = 1e-8
    soft_clip: float | None = None
    clip: float | None = 5.0
    divide: float = 1.0
    keep: Literal["all", "positive", "negative", "best", "best_worst"] = "all"
    objective_weights: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("power", "divide", "soft_clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"{name} must be positive; received {value}")
        self._rule()

    def advantages(
        self,
        rewards: Mapping[str, Numbers],
        keys: Sequence[Hashable],
        *,
        weights: Mapping[str, float] | None = None,
        distances: Numbers | None = None,
        steps: int | None = None,
    ) -> Doubles:
        """Advantages [N], or [N, T] where `objective_weights` are set; NaN where a reward is missing.

        Args:
            rewards: [N] each, by name.
            keys: [N], equal for the samples of a group (`group_keys`).
            weights: of the rewards, by name; those that are not named count 1.
            distances: [N], the samples' `diversity` in a perceptual space, where its weight is set.
            steps: T, where `objective_weights` are set.

        Raises:
            ConfigError: weights name no reward, or rows of `objective_weights` do not fit the rewards.
            DataError: a reward is infinite, has another length than `keys`, or is no win rate with `signed`.
        """
        places = _padded(keys)
        named = {name: self._read(name, values, len(keys)) for name, values in rewards.items()}
        scale = {name: 1.0 for name in named} | dict(weights or {})
        if not named or scale.keys() != named.keys():
            raise ConfigError(f"rewards are {sorted(named)}; received weights for {sorted(weights or {})}")
        if self.diversity:
            assert distances is not None, "diversity needs distances of the samples"
            named["diversity"], scale["diversity"] = doubles(distances), self.diversity
        groups = {name: _grouped(r, places) for name, r in named.items()}
        if self.objective_weights:
            by_step = np.einsum("mt,mgk->tgk", self._shares(named, steps), self._terms(groups, scale))
            return np.stack([_scattered(self._finished(step), places) for step in by_step], axis=1)
        if self.combine == "normalized":
            total = self._terms(groups, scale).sum(axis=0)
        elif self.combine == "vote":
            votes = majority(np.stack(list(groups.values())), [scale[name] for name in groups])
            total = self._normalized(votes)
        else:
            total = self._normalized(np.sum([scale[name] * r for name, r in groups.items()], axis=0))
        return _scattered(self._finished(total), places)

    def _rule(self) -> AdvantageRule:
        scope: Literal["group", "batch"] = "batch" if self.scale == "batch" else "group"
        return AdvantageRule(ddof=self.ddof, eps=self.eps, scope=scope, clip=self.clip)

    def _read(self, name: str, values: Numbers, count: int) -> Doubles:
        r_N = doubles(values)
        if r_N.shape != (count,) or np.isinf(r_N).any():
            raise DataError(f"reward {name!r} is {count} finite numbers or NaN; received shape {r_N.shape}")
        if not self.signed:
            return r_N
        if np.any((r_N < 0) | (r_N > 1)):
            raise DataError(f"signed takes win rates in [0, 1]; reward {name!r} has values outside")
        return 2 * r_N - 1

    def _normalized(self, r_GK: Doubles) -> Doubles:
        """Centered, shaped and scaled."""
        if self.center and self.power == 1 and self.scale != "none":
            return replace(self._rule(), clip=None).advantages(r_GK)
        shaped = centered(r_GK) if self.center else r_GK
        shaped = np.sign(shaped) * np.abs(shaped) ** self.power
        if self.scale == "none":
            return np.asarray(shaped)
        rows = shaped if self.scale == "group" else shaped.reshape(1, -1)
        std = moments(rows, self.ddof)[1] + self.eps
        return np.asarray(shaped / np.where(std > 0, std, 1.0))

    def _terms(self, groups: Mapping[str, Doubles], scale: Mapping[str, float]) -> Doubles:
        return np.stack([scale[name] * self._normalized(r) for name, r in groups.items()])

    def _shares(self, named: Mapping[str, Doubles], steps: int | None) -> Doubles:
        if len(self.objective_weights) != len(named) or steps is None:
            raise ConfigError(
                f"objective_weights needs a row for each reward of {list(named)} and the number of steps; "
                f"received {len(self.objective_weights)} rows and steps {steps}"
            )
        return at_steps(self.objective_weights, steps)

    def _finished(self, a_GK: Doubles) -> Doubles:
        if self.soft_clip is not None:
            a_GK = self.soft_clip * np.tanh(a_GK / self.soft_clip)
        a_GK = self._rule().clipped(a_GK) / self.divide
        if self.keep == "positive":
            return np.maximum(a_GK, 0.0)
        if self.keep == "negative":
            return np.minimum(a_GK, 0.0)
        return a_GK if self.keep == "all" else _extremes(a_GK, worst=self.keep == "best_worst")


def group_keys(
    key: GroupKey, prompts: Sequence[int], seeds: Sequence[int], steps: Sequence[int]
) -> list[tuple[int, ...]]:
    """The group key of each sample, from the indices of its prompt, initial noise and stochastic step."""
    columns = {
        "prompt": (prompts,),
        "prompt_step": (prompts, steps),
        "prompt_seed_step": (prompts, seeds, steps),
    }
    return list(zip(*columns[key], strict=True))


def select(rewards: Numbers, keys: Sequence[Hashable], *, best: int, worst: int) -> list[int]:
    """Indices, ascending, of the `best` and `worst` samples of each group, without those that lack a reward.

    Of equal rewards the first counts as better. A group smaller than best + worst is kept whole; both 0 keep
    all.
    """
    r_N = doubles(rewards)
    kept: list[int] = []
    for row in members(keys):
        known = [n for n in row if not np.isnan(r_N[n])]
        ranked = sorted(known, key=lambda n: -r_N[n])
        whole = not (best or worst) or len(ranked) <= best + worst
        kept += ranked if whole else ranked[:best] + ranked[len(ranked) - worst :]
    return sorted(kept)


def extremes(
    rewards: Mapping[str, Numbers],
    keys: Sequence[Hashable],
    *,
    weights: Mapping[str, float],
    best: float,
    worst: float,
) -> list[int]:
    """As `select`, by the weighted sum of the rewards, with shares of the mean size of a group.

    Rewards without a weight count 1.
    """
    total = np.sum([weights.get(name, 1.0) * doubles(r) for name, r in rewards.items()], axis=0)
    size = len(keys) / max(len(set(keys)), 1)
    return select(total, keys, best=round(best * size), worst=round(worst * size))


def majority(r_MGK: Doubles, weights: Sequence[float]) -> Doubles:
    """Share of its opponents that each sample beats by the weighted majority of M rewards, [G, K] in [0, 1].

    A tie counts half. A reward votes on the pairs for which it is known; a pair without a vote does not
    count, and a sample without a counted pair has NaN.
    """
    gaps = r_MGK[..., :, None] - r_MGK[..., None, :]
    known = ~np.isnan(gaps) & ~np.eye(r_MGK.shape[-1], dtype=bool)
    votes = np.einsum(
        "m,mgij->gij", np.asarray(weights, dtype=np.float64), np.sign(np.where(known, gaps, 0.0))
    )
    counted = known.any(axis=0)
    wins = np.where(counted, (np.sign(votes) + 1) / 2, 0.0).sum(axis=2)
    opponents = counted.sum(axis=2)
    return np.where(opponents > 0, wins / np.maximum(opponents, 1), np.nan)


def diversity(features: Numbers, keys: Sequence[Hashable]) -> Doubles:
    """Mean cosine distance of each sample to the others of its group, [N] in [0, 2]; alone it is 0."""
    f_ND = doubles(features)
    unit = f_ND / np.maximum(np.linalg.norm(f_ND, axis=1, keepdims=True), 1e-12)
    distance = np.zeros(len(f_ND))
    for row in members(keys):
        gaps = 1 - unit[row] @ unit[row].T
        np.fill_diagonal(gaps, 0.0)
        distance[row] = gaps.sum(axis=1) / max(len(row) - 1, 1)
    return distance


def intrinsic_rewards(scores: Numbers, levels: Numbers) -> Doubles:
    """SOLACE's reward [N]: mean over levels of s (1 - s) times scores [N, T], z-scored over the batch."""
    scores_NT, s_T = doubles(scores), doubles(levels)
    z = AdvantageRule(ddof=0, eps=1e-6).advantages(scores_NT.T).T
    return np.asarray((z * (s_T * (1 - s_T))).mean(axis=1))


def members(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of the samples of each group, in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        rows.setdefault(key, []).append(place)
    return list(rows.values())


def _padded(keys: Sequence[Hashable]) -> Places:
    """[G, K]: places of each group's samples, padded with -1."""
    rows = members(keys)
    places = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.intp)
    for g, row in enumerate(rows):
        places[g, : len(row)] = row
    return places


def _grouped(values_N: Doubles, places: Places) -> Doubles:
    return np.where(places >= 0, values_N[places], np.nan)


def _scattered(values_GK: Doubles, places: Places) -> Doubles:
    present = places >= 0
    values_N = np.empty(present.sum())
    values_N[places[present]] = values_GK[present]
    return values_N


def _extremes(a_GK: Doubles, *, worst: bool) -> Doubles:
    known = ~np.isnan(a_GK)
    kept = np.where(known, 0.0, np.nan)
    rows = np.arange(len(a_GK))
    high = np.where(known, a_GK, -np.inf).argmax(axis=1)
    low = np.where(known, a_GK, np.inf).argmin(axis=1)
    some = known.any(axis=1)
    if worst:
        some &= a_GK[rows, high] > a_GK[rows, low]
        kept[rows[some], low[some]] = -1.0
    kept[rows[some], high[some]] = 1.0
    return kept
