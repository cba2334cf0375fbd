"""The settings that a method of training a flow policy consists of. No torch.

A published method is a `Method`: one row of these settings (`prefrm.flow.methods`), over pieces that all rows
share. Notation: s in [0, 1] is the noise level (1 is pure noise), a rollout goes through T steps s_0 = 1 > ... >
s_T = 0, step i from s_i to s_(i+1); v = dx/ds is the velocity, and K samples of one prompt are a group.
"""

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Advantage",
    "Kernel",
    "Likelihood",
    "Method",
    "Objective",
    "Regularizer",
    "Rollout",
    "StochasticSteps",
]

Kernel = Literal["ode", "flow", "dance", "cps", "ddim"]
Key = Literal["prompt", "prompt_step", "prompt_seed_step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticSteps:
    """Which of the steps 0 .. T-2 are stochastic and trained in an iteration; the last one never is.

    Attributes:
        rule: "none"; "all"; "random", a window of `count` at a random start; "sliding", a window of `count` that
            moves on by `stride` every `every` iterations and starts over at the end; "each", every step in turn
            with a rollout of its own from a shared trunk; "shared", one random step for all samples.
        count: steps of a window.
        stride: steps by which a sliding window moves.
        every: iterations after which it moves.
        within: share of the steps, from the first one, in which a window starts, in (0, 1].
        trained: share of the stochastic steps that each sample is trained on, drawn at random, in (0, 1].
    """

    rule: Literal["none", "all", "random", "sliding", "each", "shared"] = "all"
    count: int = 1
    stride: int = 1
    every: int = 1
    within: float = 1.0
    trained: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a group's samples come about.

    Attributes:
        kernel: of the stochastic steps; all others are Euler steps of the ODE.
        noise: its noise level: a of "flow" and "cps", eta of "dance" and "ddim".
        stochastic: which steps.
        branches: children of each node at the first stochastic steps, in order: (2, 2, 2, 2) is a binary tree of
            depth four. Empty: every sample has a path of its own. With the rule "each": children at each step.
        branch_noise: noise levels by depth, instead of `noise`; empty: all alike.
        same_noise: the samples of a group start from the same noise.
        key: what samples are compared within: those of a prompt, of a prompt and a step, or of a prompt, an
            initial noise and a step.
        explore: cheap samples per kept sample that are scored first, with half the steps; 1 explores nothing.
        keep_best: of a group, or of what was explored, how many of the best are trained on; 0 with
            `keep_worst` 0 keeps all.
        keep_worst: how many of the worst.
        condition_noise: standard deviation, relative to that of the prompt's embedding, of a perturbation with
            which samples are drawn and which the update does not see.
    """

    kernel: Kernel = "ode"
    noise: float = 0.0
    stochastic: StochasticSteps = StochasticSteps(rule="none")
    branches: tuple[int, ...] = ()
    branch_noise: tuple[float, ...] = ()
    same_noise: bool = False
    key: Key = "prompt"
    explore: int = 1
    keep_best: int = 0
    keep_worst: int = 0
    condition_noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage:
    """From the rewards of groups to advantages: a chain, in this order.

    Attributes:
        center: subtract the group's mean.
        power: sign(x) |x|^power of what is centered.
        scale: divide by the standard deviation of the "group" or of the "batch", or by nothing.
        ddof: of that standard deviation.
        eps: added to it.
        combine: of several rewards: "sum" of weighted rewards first, "normalized" sum after each is centered and
            scaled by itself, or "vote": pairs are decided by the weighted majority of the rewards.
        signed: map a win rate r to 2 r - 1 first, which needs neither centering nor scaling.
        soft_clip: eta tanh(x / eta); None is off.
        clip: clamp to [-clip, clip]; None is off.
        divide: divide by this at the end (5 with `clip` 5 gives [-1, 1]).
        diversity: weight of a sample's mean perceptual distance to its group, added to the reward.
        keep: "all", only the "positive", only the "negative", or 1 for the "best" of a group and 0 for others.
        objective_weights: by reward name, a weight for each of equal parts of the steps: per-step weights of
            objectives; empty: the run's weights at every step.
    """

    center: bool = True
    power: float = 1.0
    scale: Literal["group", "batch", "none"] = "group"
    ddof: Literal[0, 1] = 1
    eps: float = 1e-8
    combine: Literal["sum", "normalized", "vote"] = "sum"
    signed: bool = False
    soft_clip: float | None = None
    clip: float | None = 5.0
    divide: float = 1.0
    diversity: float = 0.0
    keep: Literal["all", "positive", "negative", "best"] = "all"
    objective_weights: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """What stands for a sample's log-likelihood.

    Attributes:
        kind: "transition", the log-probability of recorded stochastic steps; "matching", minus the error of the
            velocity at noised copies of the sample.
        times: of matching, how many noise levels of the sampler's own grid a sample is trained at; 0 is all but
            the last.
        weight: of matching, by the noise level: "uniform", "t", "t2", "ghuber" (AWM), "self" (V-GRPO and
            DiffusionNFT: the error in x0 over its own mean absolute value).
        shared_noise: of matching, one draw of noise and noise level for a whole group.
        chunks: lengths of runs of steps that share one mean log-probability; empty: each step by itself.
        reduce: of matching, "each" noise level has a loss, or their "mean" log-likelihood has one.
    """

    kind: Literal["transition", "matching"] = "transition"
    times: int = 0
    weight: Literal["uniform", "t", "t2", "ghuber", "self"] = "uniform"
    shared_noise: bool = False
    chunks: tuple[int, ...] = ()
    reduce: Literal["each", "mean"] = "each"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimized.

    Attributes:
        kind: "clipped_ratio"; "least_squares" in v - v_old; "balance" (a target softmax over a group's leaves);
            "weighted" error; "dpo" on a group's best and worst; "gradient" of a differentiable scorer.
        clip: of the ratio, around 1.
        guard: GRPO-Guard's normalized ratio.
        trust: Flow-DPPO: instead of clipping, drop terms whose divergence from the old policy is above this and
            that move further away; None is off.
        kappa: of least squares: A 2 <e, d> + (kappa A + lam) |d|^2 with d = v - v_old, e = v_old - target.
        lam: of least squares.
        beta: inverse temperature of "dpo" and "balance".
        step_weight: "one", "std" of the step, "inverse_gradient" 1 / w_s, or "inverse_dt"; scaled to mean 1.
        step_weights: further weights by step, of any length, interpolated; empty: none (OTCA).
        data_weight: of the matching error on images of the user's own (`data` of the configuration).
        pixel_map: weight the squares of a log-probability by a map over pixels (ViPO).
        gradient: "refl", "draft" through the last `depth` steps, "leap" of two jumps, or "adjoint" (closed form).
        depth: steps that "draft" goes back.
        strength: weight of the reward's gradient.
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
    step_weights: tuple[float, ...] = ()
    data_weight: float = 0.0
    pixel_map: bool = False
    gradient: Literal["", "refl", "draft", "leap", "adjoint"] = ""
    depth: int = 1
    strength: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularizer:
    """What keeps the policy near where it was.

    Attributes:
        reference: weight of the distance to the policy without its adapter.
        form: "kl" of a transition, mean (mu - mu_ref)^2 / (2 std^2); or "velocity", mean (v - v_ref)^2.
        old: weight of mean (v - v_old)^2, to the old policy.
        decay: of the old policy's moving average of the weights, at most; 0 copies the weights every iteration.
        ramp: the decay is min(decay, ramp * iteration); 0 is `decay` from the start.
    """

    reference: float = 0.0
    form: Literal["kl", "velocity"] = "velocity"
    old: float = 0.0
    decay: float = 0.0
    ramp: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method.

    Attributes:
        name: as configurations and the command line have it.
        title: as the paper has it.
        paper: its arXiv number, or where it stands.
        note: what differs from the paper, and constants that could not be found.
    """

    name: str
    title: str
    paper: str
    rollout: Rollout = field(default_factory=Rollout)
    advantage: Advantage = field(default_factory=Advantage)
    likelihood: Likelihood = field(default_factory=Likelihood)
    objective: Objective = field(default_factory=Objective)
    regularizer: Regularizer = field(default_factory=Regularizer)
    intrinsic: bool = False
    note: str = ""
