"""Rewards of a group to advantages, as the GRPO family defines them; float64 throughout.

The members of the family differ in four choices: the degrees of freedom and the epsilon of the standard
deviation, whether it is taken over the group or over the whole batch, and the clip. The mean is always the
group's own.

Shapes: G groups of K candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import numpy as np

from prefrm.errors import ConfigError, DataError
from prefrm.rewards.numbers import Numbers, doubles
from prefrm.winmatrix import Doubles

__all__ = [
    "DANCE_GRPO",
    "FLOW_GRPO",
    "PREF_GRPO",
    "AdvantageRule",
    "Scope",
    "centered",
    "group_advantages",
    "moments",
    "weighted_advantages",
]

Scope = Literal["group", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageRule:
    """`clip((r - group mean) / (std + eps))`: one member of the GRPO family.

    Attributes:
        ddof: 0 divides the squared deviations by n (population), 1 by n - 1 (unbiased variance).
        eps: added to the standard deviation, >= 0.
        scope: what the standard deviation is taken over: each "group", or the whole "batch" at once.
        clip: > 0, advantages are clamped to [-clip, clip]; None leaves them.
    """

    ddof: Literal[0, 1]
    eps: float
    scope: Scope = "group"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ConfigError(f"ddof must be 0 or 1; received {self.ddof}")
        if not 0 <= self.eps < float("inf"):
            raise ConfigError(f"eps must be >= 0 and finite; received {self.eps}")
        if self.scope not in ("group", "batch"):
            raise ConfigError(f'scope must be "group" or "batch"; received {self.scope!r}')
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be positive, or None for no clip; received {self.clip}")

    def advantages(self, rewards: Numbers, group_size: int | None = None) -> Doubles:
        """The advantages of a batch of rewards, in the shape of `rewards`.

        Args:
            rewards: [G, K]; or [G * K], the groups one after another, with `group_size` K. Arrays, tensors
                of any precision and device, or lists. A reward that is NaN or None counts in no mean and no
                standard deviation, and its advantage is NaN: the caller decides.

        A group whose rewards are all equal, or that has a single one, gets exactly 0.

        Raises:
            DataError: a reward is infinite or not a real number, or the shape is not a batch of groups.
        """
        r_GK, shape = _groups(rewards, group_size)
        rows = r_GK if self.scope == "group" else r_GK.reshape(1, -1)
        scale = moments(rows, self.ddof)[1] + self.eps
        return self.clipped((centered(r_GK) / np.where(scale > 0, scale, 1.0)).reshape(shape))

    def clipped(self, advantages: Doubles) -> Doubles:
        """`advantages` clamped to [-clip, clip]; NaN stays NaN."""
        return advantages if self.clip is None else np.clip(advantages, -self.clip, self.clip)


PREF_GRPO = AdvantageRule(ddof=1, eps=1e-8, clip=5.0)
"""Pref-GRPO (arXiv 2508.20751, its `fastvideo` trainers); its rewards are `pref_grpo_rewards`."""

DANCE_GRPO = AdvantageRule(ddof=1, eps=1e-8, clip=5.0)
"""DanceGRPO (arXiv 2505.07818, `train_grpo_flux.py` with `--use_group`)."""

FLOW_GRPO = AdvantageRule(ddof=0, eps=1e-4, scope="batch", clip=5.0)
"""Flow-GRPO (arXiv 2505.05470, `stat_tracking.py` with `global_std`): the group's mean, the batch's std."""


def group_advantages(
    rewards: Numbers,
    group_size: int | None = None,
    *,
    ddof: Literal[0, 1],
    eps: float,
    scope: Scope = "group",
    clip: float | None = None,
) -> Doubles:
    """The advantages of a batch of rewards; see `AdvantageRule` and `AdvantageRule.advantages`."""
    return AdvantageRule(ddof=ddof, eps=eps, scope=scope, clip=clip).advantages(rewards, group_size)


def weighted_advantages(
    rewards: Mapping[str, Numbers],
    weights: Mapping[str, float],
    rule: AdvantageRule,
    group_size: int | None = None,
) -> Doubles:
    """Several rewards in one: `clip(sum_n weight_n * advantage_n)`, each normalised by itself first.

    As in Pref-GRPO and DanceGRPO the clip comes last. Where any of the rewards is NaN the sum is NaN.

    Raises:
        ConfigError: rewards and weights do not have the same names, or there are none.
    """
    if not rewards or rewards.keys() != weights.keys():
        raise ConfigError(
            f"each reward needs a weight: received rewards {sorted(rewards)} and weights {sorted(weights)}"
        )
    bare = replace(rule, clip=None)
    terms = [weights[name] * bare.advantages(values, group_size) for name, values in rewards.items()]
    if len({term.shape for term in terms}) > 1:
        raise DataError(f"rewards of one batch have different shapes: {[list(t.shape) for t in terms]}")
    return rule.clipped(np.asarray(sum(terms)))


def _groups(rewards: Numbers, group_size: int | None) -> tuple[Doubles, tuple[int, ...]]:
    r = doubles(rewards)
    if np.isinf(r).any():
        raise DataError("a reward is infinite; rewards are finite, or NaN where a candidate has none")
    if group_size is None:
        if r.ndim != 2:
            raise DataError(f"rewards have shape {list(r.shape)}; pass [groups, candidates], or group_size")
        return r, r.shape
    if not isinstance(group_size, Integral):
        raise DataError(f"group_size must be a whole number; received {group_size!r}")
    if r.ndim != 1 or group_size < 1 or r.size % group_size:
        raise DataError(f"rewards of shape {list(r.shape)} are not whole groups of {group_size}")
    return r.reshape(-1, group_size), r.shape


def centered(r_GK: Doubles) -> Doubles:
    """Rewards minus their group's mean, which is exactly 0 where a group's rewards are all equal."""
    # r - mean of equal rewards can be an ulp, which a tiny eps would blow up.
    flat_G1 = np.nanmax(r_GK, axis=1, keepdims=True, initial=-np.inf) <= np.nanmin(
        r_GK, axis=1, keepdims=True, initial=np.inf
    )
    return np.where(flat_G1 & ~np.isnan(r_GK), 0.0, r_GK - moments(r_GK, 0)[0])


def moments(r_GK: Doubles, ddof: int) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation of each row, [G, 1]; NaN counts in neither."""
    known = ~np.isnan(r_GK)
    count_G1 = known.sum(axis=1, keepdims=True)
    mean_G1 = np.where(known, r_GK, 0.0).sum(axis=1, keepdims=True) / np.maximum(count_G1, 1)
    squares_GK = np.where(known, r_GK - mean_G1, 0.0) ** 2
    variance_G1 = squares_GK.sum(axis=1, keepdims=True) / np.maximum(count_G1 - ddof, 1)
    return mean_G1, np.sqrt(variance_G1)
