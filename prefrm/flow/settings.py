"""The settings that a method of training a flow policy consists of. No torch.

A published method is a `Method`: one row of these settings (`prefrm.flow.methods`) over pieces that all rows
share.
Notation: s in [0, 1] is the noise level (1 is pure noise); a rollout takes T steps along the grid s_0 = 1 >
    ... >
s_T = 0, step i from s_i to s_(i+1); v = dx/ds is the velocity; K samples of one prompt are a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
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

NATURAL, COUNT, SHARE, FACTOR = (0, inf), (1, inf), (0.0, 1.0), (0.0, inf)
RANGES = {
    **dict.fromkeys(("first", "every", "times"), NATURAL),
    **dict.fromkeys(("count", "stride", "explore", "depth"), COUNT),
    **dict.fromkeys(("within", "trained", "keep_best", "keep_worst", "decay", "nested"), SHARE),
    **dict.fromkeys(("noise", "condition_noise", "clip", "trust", "beta", "lam", "data_weight"), FACTOR),
    **dict.fromkeys(("reference", "old", "ramp"), FACTOR),
    "condition_span": (0.01, 1.0),
}


def _check_ranges(settings: Any) -> None:
    for name in settings.__slots__:
        low, high = RANGES.get(name, (-inf, inf))
        value = getattr(settings, name)
        if name in RANGES and value is not None and not low <= value <= high:
            raise ConfigError(f"{name} must be in [{low:g}, {high:g}]; received {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticSteps:
    """Which of the steps 0 .. T-2 are stochastic and trained in an iteration; the last step never is.

    Attributes:
        rule: "none"; "all"; "random", a window at a random start; "sliding", a window that advances and
            restarts when it reaches the end; "each", every step in turn, with a rollout of its own from a
            shared trunk; "shared", one random step for all samples.
        first: first step that can be stochastic.
        count: steps of a window.
        stride: steps by which a sliding window advances.
        every: iterations after which it advances; 0 never moves it.
        within: share of the steps, the first ones, that "random" and "shared" draw from.
        trained: share of the stochastic steps (or chunks) that each sample is trained on, drawn at random.
    """

    rule: Literal["none", "all", "random", "sliding", "each", "shared"] = "all"
    first: int = 0
    count: int = 1
    stride: int = 1
    every: int = 1
    within: float = 1.0
    trained: float = 1.0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How the samples of a group are drawn.

    Attributes:
        kernel: of the stochastic steps (`prefrm.flow.kernels`); all others are Euler steps of the ODE.
        noise: its noise level: a of "flow", a in (0, 1] of "cps", eta of "dance", eta in (0, 1] of "ddim".
        stochastic: which steps are stochastic.
        branches: children of each node at the first stochastic steps, in order: (2, 2, 2, 2) is a binary tree
            of depth four. With the rules "each" and "shared": of the trunk at that step. Empty: separate
            paths.
        branch_noise: noise levels by depth of the tree, in place of `noise`; empty: all alike.
        same_noise: the samples of a group start from the same noise.
        key: what samples are compared within: a prompt, a prompt and step, or a prompt, initial noise and
            step.
        explore: samples, of half the steps, that are scored for each that is kept and drawn again from its
            seed.
        keep_best: share of the group's size K that is trained on, of the best; with `keep_worst` 0 too, all
            are.
        keep_worst: the same, of the worst.
        condition_noise: standard deviation, relative to that of the prompt's embedding, of a perturbation
            that the rollout sees and the update does not.
        condition_span: it fades from s = 1 to s = 1 - condition_span (`steps.condition_strength`).
    """

    kernel: Kernel = "ode"
    noise: float = 0.0
    stochastic: StochasticSteps = StochasticSteps(rule="none")
    branches: tuple[int, ...] = ()
    branch_noise: tuple[float, ...] = ()
    same_noise: bool = False
    key: GroupKey = "prompt"
    explore: int = 1
    keep_best: float = 0.0
    keep_worst: float = 0.0
    condition_noise: float = 0.0
    condition_span: float = 1.0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if (self.kernel == "ode") != (self.stochastic.rule == "none"):
            raise ConfigError(
                'the kernel "ode" goes with the stochastic rule "none", and no other kernel does'
            )
        levels = (self.noise, *self.branch_noise)
        # sin(a pi / 2) of "cps" falls again beyond a = 1, and c of "ddim" would be imaginary.
        if self.kernel in ("cps", "ddim") and not 0 < min(levels) <= max(levels) <= 1:
            raise ConfigError(f"noise levels of {self.kernel} must be in (0, 1]; received {levels}")
        if self.branch_noise and len(self.branch_noise) != len(self.branches):
            raise ConfigError(f"branch_noise must be as long as branches; received {self.branch_noise}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """What stands for a sample's log-likelihood.

    Attributes:
        kind: "transition", the log-probability of recorded stochastic steps; "matching", minus the error of
            the velocity at noised copies of the sample.
        times: of matching, noise levels of the sampler's grid that a sample trains at; 0: all but the last
            one.
        skip_first: of matching, leave out s = 1.
        weight: of matching, of the squared error at noise level s: "uniform"; "t", s; "t2", s^2; "ghuber",
            AWM's generalized Huber function; "self", the squared error in x0 over its own mean absolute
            value.
        shared_noise: of matching, one draw of noise and noise levels for a whole group.
        chunks: steps (or noise levels) that share one log-probability and so one loss: "each" by itself,
            "all" together, or lengths of consecutive runs, scaled to the steps that there are.
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
        _check_ranges(self)
        if not isinstance(self.chunks, str) and min(self.chunks, default=0) < 1:
            raise ConfigError(f"chunks must be lengths of at least 1; received {self.chunks}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimized.

    Attributes:
        kind: "clipped_ratio"; "least_squares" in v - v_old; "balance", the ratio towards a softmax of
            rewards; "weighted" matching error; "dpo" within a group; "gradient" of a differentiable scorer.
        clip: the ratio is clamped to [1 - clip, 1 + clip].
        guard: GRPO-Guard's normalized ratio.
        trust: Flow-DPPO: instead of clipping, drop terms whose divergence from the old policy is at least
            this and that move further away; None is off.
        kappa: of least squares, A 2 <e, d> + (kappa A + lam) |d|^2 with d = v - v_old, e = v_old - target.
        lam: of least squares, > 0 with the weight "self"; of "adjoint", the weight of the reward.
        beta: inverse temperature of "dpo" and "balance".
        step_weight: "one"; "std" of the transition; "inverse_gradient", 1 / w_s with the gradient size
            w_s = |d mean / d v| / std; "inverse_dt", 1 / (s_i - s_(i+1)).
        step_scale: multiplies the step weights; None scales those of the steps 0 .. T-2 to mean 1.
        step_weights: further weights by step, interpolated from any number of values; empty: none.
        data_weight: weight of the matching error on samples of the reference policy, drawn as data.
        pixel_map: weight the log-probability by a map over pixels (`prefrm.flow.maps`).
        gradient: "refl", one jump to x0 from a random late step; "draft", the last `depth` steps; "leap", two
            jumps between random steps; "adjoint", closed-form adjoint matching (`prefrm.flow.gradients`).
        depth: steps that "draft" differentiates.
        nested: share of the gradient that "leap" passes through the input of its second jump.
        margin: of "gradient", minimize max(margin - utility, 0); None minimizes minus the utility.
        scale: multiplies the objective, but not the regularizer.
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
    gradient: Literal["none", "refl", "draft", "leap", "adjoint"] = "none"
    depth: int = 1
    nested: float = 1.0
    margin: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_ranges(self)
        if (self.kind == "gradient") != (self.gradient != "none"):
            raise ConfigError(f"kind {self.kind!r} does not go with gradient {self.gradient!r}")

    @property
    def within_group(self) -> bool:
        """Whether a loss joins the samples of a group, which one batch must then hold together."""
        return self.kind in ("balance", "dpo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer:
    """What keeps the policy near where it was.

    Attributes:
        reference: weight of the distance to the policy without its adapter.
        form: of that distance: "kl" of a transition, mean (mu - mu_ref)^2 / (2 std^2); "kl_dt", that times
            s_i - s_(i+1); "velocity", mean (v - v_ref)^2; "log_prob", (mean over steps of log p / p_ref)^2.
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
        _check_ranges(self)

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
        note: differences from paper or released code, and constants that were not found.
    """

    name: str
    title: str
    paper: str
    rollout: Rollout = Rollout()
    advantage: AdvantageChain = field(default_factory=AdvantageChain)
    likelihood: Likelihood = Likelihood()
    objective: Objective = Objective()
    regularizer: Regularizer = Regularizer()
    intrinsic: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        objective, matching = self.objective, self.likelihood.kind == "matching"
        kind, deterministic = objective.kind, self.rollout.kernel == "ode"
        density = not matching and self.rollout.kernel != "cps"
        for wrong, fault in (
            (kind != "gradient" and not matching and deterministic, "transitions need stochastic steps"),
            (kind in ("least_squares", "weighted") and not matching, f"{kind} needs the likelihood matching"),
            (kind == "least_squares" and self.likelihood.weight == "ghuber", "ghuber is no square"),
            (matching and self.regularizer.form in ("kl", "kl_dt"), "form kl needs transitions"),
            (matching and objective.trust is not None, "trust needs transitions"),
            (objective.guard and not density, "guard needs transitions with a density: flow, dance or ddim"),
            (
                deterministic and objective.step_weight in ("std", "inverse_gradient"),
                "step_weight needs noise",
            ),
        ):
            if wrong:
                raise ConfigError(f"settings of {self.name} do not fit each other: {fault}")

    @property
    def needs_old(self) -> bool:
        """Whether the update evaluates the old policy (the second adapter) at its own inputs."""
        return bool(self.regularizer.old) or self.objective.kind == "least_squares"

    @property
    def needs_reference(self) -> bool:
        """Whether the update evaluates the policy without its adapter."""
        needed = self.objective.kind == "dpo" or self.objective.gradient == "adjoint"
        return needed or bool(self.regularizer.reference)


def with_settings(method: Method, settings: Mapping[str, Any]) -> Method:
    """`method` with nested settings replaced, such as {"objective": {"clip": 1e-3}}; raises `ConfigError`."""
    return from_mapping(Method, _merged(to_mapping(method), settings), source="settings")


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    sections = {key: value for key, value in changes.items() if isinstance(value, Mapping) and key in tree}
    return {**tree, **changes, **{key: _merged(tree[key], value) for key, value in sections.items()}}
