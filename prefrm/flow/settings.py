"""The settings of a method that trains a flow policy. No torch.

A published method is a `Method`: a row of these settings (`prefrm.flow.methods`) over pieces that all share.
Notation: s in [0, 1] is the noise level, 1 is pure noise; a rollout takes T steps along the grid s_0 = 1 ...,
s_T = 0, step i from s_i to s_(i+1) < s_i; v = dx/ds is the velocity; K samples of a prompt are a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prefrm.config import (
    Bounded,
    Count,
    Natural,
    NonNegative,
    Positive,
    Share,
    check_bounds,
    from_mapping,
    to_mapping,
)
from prefrm.errors import ConfigError
from prefrm.rewards.chain import AdvantageChain, GroupKey

__all__ = [
    "Kernel",
    "Likelihood",
    "Method",
    "Objective",
    "Regularizer",
    "Rollout",
    "StochasticSteps",
    "with_settings",
]

Kernel = Literal["ode", "flow", "dance", "cps", "ddim"]
Loss = Literal[
    "clipped_ratio", "least_squares", "balance", "weighted", "dpo", "refl", "draft", "leap", "adjoint"
]
Steps = tuple[int, ...]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticSteps(Bounded):
    """Which of the steps 0 .. T-2 are stochastic and trained in an iteration; the last step never is."""

    # "random": a window at a random start; "sliding": a window that advances by a step and restarts at the
    # end; "each": every step in turn, with a rollout from a trunk that all share; "shared": one random step.
    rule: Literal["none", "all", "random", "sliding", "each", "shared"] = "all"
    first: Natural = 0  # first step that can be stochastic
    count: Count = 1  # steps of a window
    every: Natural = 1  # iterations from one advance to the next; 0 never moves it
    within: Share = 1.0  # share of the steps, the first ones, that "random" and "shared" draw from
    trained: Share = 1.0  # share of the stochastic steps (or chunks) that a sample is trained on, at random

    def on_path(self, total: int) -> int:
        """Stochastic steps of one path of T = `total` steps."""
        room = total - 1 - min(self.first, total - 2)
        return {"none": 0, "all": room, "each": 1, "shared": 1}.get(self.rule, min(self.count, room))

    def draw(self, iteration: int, total: int, rng: Rng) -> Steps:
        """The stochastic steps of an iteration, ascending; with the rule "each", each gets a rollout.

        `rng` is seeded by run and iteration, so that all samples agree.
        """
        first, count = min(self.first, total - 2), self.on_path(total)
        room = total - 1 - first
        if self.rule in ("none", "all", "each"):
            return tuple(range(first, first + room)) if count else ()
        if self.rule == "sliding":
            start = iteration // self.every % (room - count + 1) if self.every else 0
        else:
            last = min(room, max(count, int(self.within * total) - first)) - count
            start = int(rng.integers(last + 1))
        return tuple(range(first + start, first + start + count))

    def chosen(self, units: int, rng: Rng) -> npt.NDArray[np.bool_]:
        """[units]: those that a sample is trained on, a share of them, rounded down, but at least one."""
        count = max(1, int(self.trained * units + 1e-9))
        return np.asarray(rng.random(units).argsort().argsort() < count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Bounded):
    """Rollout of the samples of a group."""

    # That draws: the policy in training, or "old", the lagged one (its decay is the regularizer's).
    policy: Literal["current", "old"] = "current"
    kernel: Kernel = "ode"  # of the stochastic steps (`prefrm.flow.kernels`); others are Euler steps
    # a of "flow", a in (0, 1] of "cps", eta of "dance", eta in (0, 1] of "ddim".
    noise: NonNegative = 0.0
    stochastic: StochasticSteps = StochasticSteps(rule="none")
    # Children of each node at the first stochastic steps, in order: (2, 2, 2, 2) is a binary tree of depth 4.
    # With the rules "each" and "shared", of the trunk at that step. Empty: separate paths.
    branches: tuple[int, ...] = ()
    branch_noise: tuple[float, ...] = ()  # levels by depth of the tree, in place of `noise`; empty: all alike
    # The noise levels are the scheduler's shift of 1, 1 - 1 / T, ..., 1 / T, 0. In its own grid the last one
    # can be just above 0: 0.009 of Stable Diffusion 3.
    even_grid: bool = False
    same_noise: bool = False  # the samples of a group start from the same noise
    key: GroupKey = "prompt"  # of the groups within which samples are compared
    explore: Count = 1  # samples of half the steps for each that is then drawn again from its seed
    keep_best: Share = 0.0  # share of the group's size that is trained on, of the best; both 0: all are
    keep_worst: Share = 0.0  # the same, of the worst
    # Standard deviation, relative to that of each token of the prompt's embedding, of noise that the rollout
    # sees and the update does not (E2PO); it fades to 0 from s = 1 to 1 - condition_span.
    condition_noise: NonNegative = 0.0
    condition_span: Positive = 1.0

    def __post_init__(self) -> None:
        check_bounds(self)
        if (self.kernel == "ode") != (self.stochastic.rule == "none"):
            raise ConfigError('the kernel "ode" goes with the stochastic rule "none", no other kernel does')
        levels = (self.noise, *self.branch_noise)
        # sin(a pi / 2) of "cps" falls again beyond a = 1, and c of "ddim" would be imaginary.
        if self.kernel in ("cps", "ddim") and not 0 < min(levels) <= max(levels) <= 1:
            raise ConfigError(f"noise levels of {self.kernel} must be in (0, 1]; received {levels}")
        if self.branch_noise and len(self.branch_noise) != len(self.branches):
            raise ConfigError(f"branch_noise must be as long as branches; received {self.branch_noise}")
        if self.stochastic.rule == "each" and not self.branches:
            raise ConfigError('the stochastic rule "each" needs branches, the children of a trunk')

    def tree(self, total: int) -> Steps:
        """The branches of a rollout of T = `total` steps: no more than it has stochastic steps."""
        return self.branches[: self.stochastic.on_path(total)]

    def condition_strength(self, s: float) -> float:
        """E2PO's share of the perturbed condition at noise level s: clip((s - (1 - span)) / span, 0, 1)."""
        return min(max((s - (1 - self.condition_span)) / self.condition_span, 0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood(Bounded):
    """Log-likelihood of a sample."""

    # "transition": the log-probability of recorded stochastic steps; "matching": minus the error of the
    # velocity at noised copies of the sample.
    kind: Literal["transition", "matching"] = "transition"
    times: Natural = 0  # matching: noise levels of the grid that a sample trains at; 0: all but the last one
    skip_first: bool = False  # matching: leave out s = 1
    # Matching: the squared error as it is; AWM's generalized Huber function of it, times s; or the squared
    # error in x0 over its own mean absolute value.
    weight: Literal["uniform", "ghuber", "self"] = "uniform"
    shared_noise: bool = False  # matching: one draw of noise and noise levels for a whole group
    # Steps (or noise levels) that share one log-probability and so one loss: "each" by itself, "all"
    # together, or lengths of consecutive runs, scaled to the number of steps.
    chunks: Literal["each", "all"] | tuple[int, ...] = "each"
    reduce: Literal["mean", "sum"] = "mean"  # from the steps of a chunk to its log-probability

    def __post_init__(self) -> None:
        check_bounds(self)
        if not isinstance(self.chunks, str) and min(self.chunks, default=0) < 1:
            raise ConfigError(f"chunks must be lengths of at least 1; received {self.chunks}")

    def units(self, count: int) -> tuple[Steps, ...]:
        """Positions 0 .. count - 1 of the trained steps, in the units that share a loss.

        (2, 3, 4, 7) of 8 positions are runs of 1, 2, 2 and 3.
        """
        named = {"each": (1,) * count, "all": (count,)}
        chunks = named[self.chunks] if isinstance(self.chunks, str) else self.chunks
        ends = np.floor(np.cumsum(chunks) * count / max(sum(chunks), 1) + 0.5).astype(int).tolist()
        runs = (tuple(range(start, end)) for start, end in zip([0, *ends], ends, strict=False))
        return tuple(run for run in runs if run)

    def levels(self, total: int, rng: Rng) -> Steps:
        """Steps i < T - 1 = total - 1 of the grid, ascending, at whose levels s_i a sample trains.

        One is drawn from each of `times` equal parts of the grid.
        """
        levels = np.arange(int(self.skip_first), max(total - 1, 1))
        if not 0 < self.times < len(levels):
            return tuple(levels.tolist())
        edges = np.linspace(0, len(levels), self.times + 1)
        places = edges[:-1] + rng.random(self.times) * np.diff(edges)
        return tuple(levels[places.astype(int)].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Bounded):
    """Loss of a sample."""

    # "least_squares" in v - v_old; "balance": the ratio towards a softmax of rewards; "weighted" matching
    # error; "dpo" within a group. Along the gradient of a differentiable scorer: "refl": one jump to x0 from
    # a random late step; "draft": the last `depth` steps; "leap": two jumps between random steps; "adjoint":
    # closed-form adjoint matching (`prefrm.flow.gradients`).
    kind: Loss = "clipped_ratio"
    clip: NonNegative = 1e-4  # the ratio is clamped to [1 - clip, 1 + clip]
    guard: bool = False  # GRPO-Guard's normalized ratio
    # Flow-DPPO: instead of clipping, drop terms whose divergence from the old policy is at least this and
    # that move further away; None is off.
    trust: NonNegative | None = None
    # Least squares: A 2 <e, d> + (kappa A + lam) |d|^2 with d = v - v_old, e = v_old - target; lam > 0 with
    # the weight "self". Of "adjoint", lam is the weight of the reward.
    kappa: float = 0.0
    lam: NonNegative = 1.0
    beta: NonNegative = 100.0  # inverse temperature of "dpo" and "balance"
    # "std" of the transition; "inverse_gradient": 1 / w_s with the gradient size w_s = |d mean / d v| / std;
    # "inverse_dt": 1 / (s_i - s_(i+1)).
    step_weight: Literal["one", "std", "inverse_gradient", "inverse_dt"] = "one"
    step_scale: float | None = None  # multiplies them; None scales those of the steps 0 .. T-2 to mean 1
    step_weights: tuple[float, ...] = ()  # further ones, interpolated from any number of values; empty: none
    data_weight: NonNegative = 0.0  # of the matching error on samples of the reference policy, drawn as data
    pixel_map: bool = False  # weight the log-probability by a map over pixels (`prefrm.flow.features`)
    depth: Count = 1  # steps that "draft" differentiates
    nested: Share = 1.0  # share of the gradient that "leap" passes through the input of its second jump
    margin: float | None = None  # minimize max(margin - utility, 0) of the scorer; None: minus the utility
    scale: float = 1.0  # multiplies the objective, but not the regularizer

    @property
    def within_group(self) -> bool:
        """Whether a loss, or the gradient of a pairwise judge, joins a group, which is then in one batch."""
        return self.kind in ("balance", "dpo") or self.differentiates

    @property
    def differentiates(self) -> bool:
        """Whether the loss follows the gradient of a differentiable scorer, in place of advantages."""
        return self.through_sampler or self.kind == "adjoint"

    @property
    def through_sampler(self) -> bool:
        """Whether the gradient of the scorer flows through steps of the sampler."""
        return self.kind in ("refl", "draft", "leap")

    def points(self, total: int, rng: Rng) -> Steps:
        """Steps of the grid between which `gradients.leap` jumps, ascending; at the last, T, stands x0."""
        if self.kind == "refl":
            # The last quarter: 30 to 39 of 40.
            return int(rng.integers(3 * total // 4, total)), total
        if self.kind == "draft":
            return tuple(range(max(total - self.depth, 0), total + 1))
        first, second = sorted(rng.choice(total, size=2, replace=False).tolist())
        return first, second, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer(Bounded):
    """Distances to the reference and to the old policy, added to the loss."""

    reference: NonNegative = 0.0  # weight of the distance to the policy without its adapter
    # "kl" of a transition, mean (mu - mu_ref)^2 / (2 std^2); "kl_dt", that times s_i - s_(i+1); "velocity",
    # mean (v - v_ref)^2; "log_prob", (mean over steps of log p / p_ref)^2.
    form: Literal["kl", "kl_dt", "velocity", "log_prob"] = "velocity"
    old: NonNegative = 0.0  # weight of mean (v - v_old)^2, the distance to the old policy
    decay: Share = 0.0  # largest decay of the old policy's moving average of the weights; 0 copies them
    ramp: NonNegative = 0.0  # the decay is min(decay, ramp * iteration); 0 is `decay` from the start

    def decay_at(self, iteration: int) -> float:
        """Decay of the old policy's weights after this iteration, counted from 0."""
        return min(self.decay, self.ramp * iteration) if self.ramp else self.decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method."""

    name: str  # as configurations and the command line have it
    title: str  # as the paper has it
    paper: str  # its arXiv number, or where it is published
    rollout: Rollout = Rollout()
    advantage: AdvantageChain = field(default_factory=AdvantageChain)  # from rewards to advantages
    likelihood: Likelihood = Likelihood()
    objective: Objective = Objective()
    regularizer: Regularizer = Regularizer()
    intrinsic: bool = False  # the reward is the model's own confidence (`likelihood.probe_scores`)
    note: str = ""  # differences from paper or released code, and constants that were not found

    def __post_init__(self) -> None:
        rollout, objective, kind = self.rollout, self.objective, self.objective.kind
        matching, deterministic = self.likelihood.kind == "matching", rollout.kernel == "ode"
        density = not matching and rollout.kernel != "cps"
        split = rollout.stochastic.rule == "each" and rollout.key == "prompt"
        for fault, wrong in {
            "transitions need stochastic steps": deterministic
            and not (matching or objective.through_sampler),
            f"{kind} needs the likelihood matching": kind in ("least_squares", "weighted", "adjoint")
            and not matching,
            "ghuber is not a square": kind == "least_squares" and self.likelihood.weight == "ghuber",
            "form kl needs transitions": matching and self.regularizer.form in ("kl", "kl_dt"),
            "trust needs transitions": matching and objective.trust is not None,
            "guard needs transitions with a density: flow, dance or ddim": objective.guard and not density,
            "step_weight needs noise": deterministic and objective.step_weight in ("std", "inverse_gradient"),
            "a gradient through the sampler has no regularizer": objective.through_sampler
            and (self.regularizer.reference or self.regularizer.old),
            "branches need transitions": rollout.branches and (matching or objective.differentiates),
            f"{kind} needs a group to be drawn together: key prompt_step": objective.within_group and split,
        }.items():
            if wrong:
                raise ConfigError(f"settings of {self.name} do not fit each other: {fault}")

    @property
    def needs_old(self) -> bool:
        """Whether the old policy (the second adapter) draws, or is evaluated at the update's inputs."""
        least_squares = self.objective.kind == "least_squares"
        return least_squares or bool(self.regularizer.old) or self.rollout.policy == "old"

    @property
    def needs_reference(self) -> bool:
        """Whether the update evaluates the policy without its adapter."""
        return self.objective.kind in ("dpo", "adjoint") or bool(self.regularizer.reference)


def with_settings(method: Method, settings: Mapping[str, Any]) -> Method:
    """`method` with nested settings replaced, such as {"objective": {"clip": 1e-3}}; raises `ConfigError`."""
    return from_mapping(Method, _merged(to_mapping(method), settings), source="settings")


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    sections = {key: value for key, value in changes.items() if isinstance(value, Mapping) and key in tree}
    return {**tree, **changes, **{key: _merged(tree[key], value) for key, value in sections.items()}}
