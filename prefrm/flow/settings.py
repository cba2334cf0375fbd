"""The settings that a method of training a flow policy consists of. No torch.

A published method is a `Method`: one row of these settings (`prefrm.flow.methods`) over pieces that all rows
share. Notation: s in [0, 1] is the noise level (1 is pure noise); a rollout takes T steps along the grid
s_0 = 1 > ... > s_T = 0, step i from s_i to s_(i+1); v = dx/ds is the velocity; K samples of a prompt are a
group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefrm.config import from_mapping, to_mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticSteps:
    """Which of the steps 0 .. T-2 are stochastic and trained in an iteration; the last step never is.

    Attributes:
        rule: "none"; "all"; "random", a window of `count` at a random start; "sliding", a window of `count`
            that advances by `stride` every `every` iterations and restarts at step 0 when it reaches the end;
            "each", every step in turn with a rollout of its own from a shared trunk; "shared", one random
            step for all samples.
        count: steps of a window, >= 1.
        stride: steps by which a sliding window advances, >= 1.
        every: iterations after which it advances, >= 1.
        within: share of the T steps, from step 0 on, that "random" and "shared" draw from, in (0, 1].
        trained: share of the stochastic steps (or chunks) that each sample is trained on, drawn at random, in
            (0, 1]; at least one is.
    """

    rule: Literal["none", "all", "random", "sliding", "each", "shared"] = "all"
    count: int = 1
    stride: int = 1
    every: int = 1
    within: float = 1.0
    trained: float = 1.0

    def __post_init__(self) -> None:
        for name in ("count", "stride", "every"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("within", "trained"):
            _require(0 < getattr(self, name) <= 1, name, "in (0, 1]", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How the samples of a group are drawn.

    Attributes:
        kernel: transition of the stochastic steps; all other steps are Euler steps of the ODE.
        noise: its noise level: a of "flow", a in (0, 1] of "cps", eta of "dance", eta in (0, 1] of "ddim".
        stochastic: which steps are stochastic.
        branches: children of each node at the first stochastic steps, in order: (2, 2, 2, 2) is a binary tree
            of depth four. Empty: every sample has a path of its own. With the rules "each" and "shared":
            children of a trunk at the stochastic step.
        branch_noise: noise levels by depth of the tree, in place of `noise`; empty: all alike.
        same_noise: the samples of a group start from the same noise.
        key: what samples are compared within: those of a prompt, of a prompt and a step, or of a prompt, an
            initial noise and a step.
        explore: cheap samples (half the steps) that are scored per sample that is kept; the kept ones are
            drawn again from the same seeds at full cost. 1 explores nothing.
        keep_best: of a group, or of what was explored, how many of the best are trained on; 0 together with
            `keep_worst` 0 keeps all.
        keep_worst: how many of the worst.
        condition_noise: standard deviation, relative to that of the prompt's embedding, of a perturbation
            that the rollout sees and the update does not.
        condition_span: the perturbation fades from full strength at s = 1 to none at s = 1 - condition_span,
            in (0, 1] (`steps.condition_strength`).
    """

    kernel: Kernel = "ode"
    noise: float = 0.0
    stochastic: StochasticSteps = StochasticSteps(rule="none")
    branches: tuple[int, ...] = ()
    branch_noise: tuple[float, ...] = ()
    same_noise: bool = False
    key: GroupKey = "prompt"
    explore: int = 1
    keep_best: int = 0
    keep_worst: int = 0
    condition_noise: float = 0.0
    condition_span: float = 1.0

    def __post_init__(self) -> None:
        stochastic = self.stochastic.rule != "none"
        if stochastic != (self.kernel != "ode"):
            raise ConfigError(
                f"kernel {self.kernel!r} does not fit the rule {self.stochastic.rule!r}: "
                'the kernel "ode" goes with the rule "none", every other kernel with stochastic steps'
            )
        for noise in (self.noise, *self.branch_noise) if stochastic else ():
            # sin(a pi / 2) decreases again beyond a = 1, and ddim's c would be imaginary.
            bounded = self.kernel in ("cps", "ddim")
            _require(noise > 0 and (noise <= 1 or not bounded), f"noise of {self.kernel}", "in (0, 1]", noise)
        _require(all(k >= 1 for k in self.branches), "branches", "at least 1 each", self.branches)
        _require(
            len(self.branch_noise) in (0, len(self.branches)),
            "branch_noise",
            "one a level",
            self.branch_noise,
        )
        _require(self.explore >= 1, "explore", "at least 1", self.explore)
        _require(min(self.keep_best, self.keep_worst) >= 0, "keep_best, keep_worst", "at least 0", "less")
        _require(0 < self.condition_span <= 1, "condition_span", "in (0, 1]", self.condition_span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """What stands for a sample's log-likelihood.

    Attributes:
        kind: "transition", the log-probability of recorded stochastic steps; "matching", minus the error of
            the velocity at noised copies of the sample.
        times: of matching, how many noise levels of the sampler's own grid each sample is trained at, one
            drawn from each of equal parts of the grid; 0 takes all levels but the last one.
        skip_first: of matching, leave out s = 1.
        weight: of matching, of the squared error at a noise level s: "uniform"; "t", s; "t2", s^2; "ghuber",
            AWM's generalized Huber function; "self", of V-GRPO and DiffusionNFT: the squared error in x0 over
            its own mean absolute value.
        shared_noise: of matching, one draw of noise and noise levels for a whole group.
        chunks: which steps (or noise levels) share one log-probability, and so one loss: "each" step by
            itself, "all" together, or the lengths of consecutive runs, scaled to the steps that there are.
        reduce: a chunk's log-probability is the "mean" or the "sum" of its steps'.
    """

    kind: Literal["transition", "matching"] = "transition"
    times: int = 0
    skip_first: bool = False
    weight: Literal["uniform", "t", "t2", "ghuber", "self"] = "uniform"
    shared_noise: bool = False
    chunks: Literal["each", "all"] | tuple[int, ...] = "each"
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        _require(self.times >= 0, "times", "at least 0", self.times)
        if not isinstance(self.chunks, str):
            _require(min(self.chunks, default=0) >= 1, "chunks", "lengths of at least 1", self.chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimized.

    Attributes:
        kind: "clipped_ratio"; "least_squares" in v - v_old; "balance", the clipped ratio towards a softmax of
            the rewards over a group's leaves; "weighted" error; "dpo" within a group; "gradient" of a
            differentiable scorer.
        clip: the ratio is clamped to [1 - clip, 1 + clip]; 1 or more is off for an on-policy update.
        guard: GRPO-Guard's normalized ratio.
        trust: Flow-DPPO: instead of clipping, drop terms whose divergence from the old policy is at least
            this and that move further away; None is off.
        kappa: of least squares: A 2 <e, d> + (kappa A + lam) |d|^2 with d = v - v_old, e = v_old - target.
        lam: of least squares, > 0 with the likelihood weight "self".
        beta: inverse temperature of "dpo" and "balance".
        step_weight: "one"; "std", of the transition; "inverse_gradient", 1 / w_s with the gradient size
            w_s = |d mean / d v| / std; "inverse_dt", 1 / (s_i - s_(i+1)).
        step_scale: multiplies the step weight; None scales the weights of the steps 0 .. T-2 to mean 1.
        step_weights: further weights by step, interpolated from any number of values over the rollout; empty:
            none.
        data_weight: weight of the matching error on the user's own images.
        pixel_map: weight the log-probability by a map over the latents (`prefrm.flow.maps`).
        gradient: of "gradient": "refl", one step to x0 from a random late step; "draft", the last `depth`
            steps; "leap", two jumps between random steps; "adjoint", closed-form adjoint matching.
        depth: steps that "draft" differentiates.
        nested: share of the gradient that "leap" passes through the input of its second jump.
        margin: of "gradient", minimize max(margin - utility, 0); None minimizes minus the utility.
        scale: multiplies the objective, but not the regularizer; of "adjoint", lambda of the reward.
    """

    kind: Literal["clipped_ratio", "least_squares", "balance", "weighted", "dpo", "gradient"] = (
        "clipped_ratio"
    )
    clip: float = 1e-4
    guard: bool = False
    trust: float | None = None
    kappa: float = 0.0
    lam: float = 1.0
    beta: float = 100.0
    step_weight: Literal["one", "std", "inverse_gradient", "inverse_dt"] = "one"
    step_scale: float | None = None
    step_weights: tuple[float, ...] = ()
    data_weight: float = 0.0
    pixel_map: bool = False
    gradient: Literal["", "refl", "draft", "leap", "adjoint"] = ""
    depth: int = 1
    nested: float = 1.0
    margin: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        _require(self.clip > 0, "clip", "positive", self.clip)
        _require(self.depth >= 1, "depth", "at least 1", self.depth)
        if (self.kind == "gradient") != (self.gradient != ""):
            raise ConfigError(
                f"kind {self.kind!r} does not fit gradient {self.gradient!r}: set both, or neither"
            )

    @property
    def within_group(self) -> bool:
        """Whether a loss joins the samples of a group, which one batch must then hold together."""
        return self.kind in ("balance", "dpo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer:
    """What keeps the policy near where it was.

    Attributes:
        reference: weight of the distance to the policy without its adapter.
        form: of that distance: "kl" of a transition, mean (mu - mu_ref)^2 / (2 std^2); "kl_dt", the same
            times s_i - s_(i+1); "velocity", mean (v - v_ref)^2; "log_prob", the square of the chunk's mean of
            log p - log p_ref.
        old: weight of mean (v - v_old)^2, the distance to the old policy.
        decay: largest decay of the old policy's moving average of the weights; 0 copies them.
        ramp: the decay is min(decay, ramp * iteration); 0 is `decay` from the start.
    """

    reference: float = 0.0
    form: Literal["kl", "kl_dt", "velocity", "log_prob"] = "velocity"
    old: float = 0.0
    decay: float = 0.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        _require(min(self.reference, self.old) >= 0, "reference, old", "at least 0", "less")
        _require(0 <= self.decay < 1, "decay", "in [0, 1)", self.decay)

    def decay_at(self, iteration: int) -> float:
        """Decay of the old policy's weights after this iteration, counted from 0."""
        return min(self.decay, self.ramp * iteration) if self.ramp else self.decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method.

    Attributes:
        name: as configurations and the command line have it.
        title: as the paper has it.
        paper: its arXiv number, or where it is published.
        advantage: from rewards to advantages (`prefrm.rewards.chain`).
        intrinsic: the reward is the model's own confidence (`likelihood.probe_scores`); no scorer trains.
        note: differences from the paper or the released code, and constants that could not be found.
    """

    name: str
    title: str
    paper: str
    rollout: Rollout = field(default_factory=Rollout)
    advantage: AdvantageChain = field(default_factory=AdvantageChain)
    likelihood: Likelihood = field(default_factory=Likelihood)
    objective: Objective = field(default_factory=Objective)
    regularizer: Regularizer = field(default_factory=Regularizer)
    intrinsic: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        kind, transition = self.objective.kind, self.likelihood.kind == "transition"
        for wrong, fault in (
            (transition and kind in ("least_squares", "weighted"), f'{kind} needs the likelihood "matching"'),
            (transition and kind != "gradient" and self.rollout.kernel == "ode", "no step is stochastic"),
            (not transition and self.regularizer.form in ("kl", "kl_dt"), "kl needs transitions"),
            (not transition and self.objective.guard, "the guard needs transitions"),
            (self.objective.guard and self.rollout.kernel == "cps", "cps has no normalized log-probability"),
            (self.objective.guard and self.objective.trust is not None, "guard and trust exclude each other"),
        ):
            if wrong:
                raise ConfigError(f"method {self.name!r}: {fault}; change likelihood, objective or rollout")

    @property
    def needs_old(self) -> bool:
        """Whether the update evaluates the old policy at its own inputs (a second adapter)."""
        return bool(self.regularizer.old) or self.objective.kind == "least_squares"

    @property
    def needs_reference(self) -> bool:
        """Whether the update evaluates the policy without its adapter."""
        matched = self.objective.kind == "dpo" or self.objective.gradient == "adjoint"
        return bool(self.regularizer.reference) or matched


def with_settings(method: Method, settings: Mapping[str, Any]) -> Method:
    """`method` with nested settings replaced, such as {"objective": {"clip": 1e-3}}.

    Raises:
        ConfigError: a key is unknown, or a value is of the wrong type or out of range.
    """
    return from_mapping(Method, _merged(to_mapping(method), settings), source="settings")


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        key: _merged(tree[key], value)
        for key, value in changes.items()
        if isinstance(value, Mapping) and isinstance(tree.get(key), Mapping)
    }
    return {**tree, **changes, **nested}


def _require(holds: bool, name: str, wanted: str, received: object) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {wanted}; received {received}")
