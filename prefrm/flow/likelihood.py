"""A sample's log-likelihood: of recorded transitions, or minus the matching error at noised copies of it.

`transition_terms` and `matching_terms` turn the velocities of one step (or noise level) into `Terms`, from
which `prefrm.flow.objectives` computes losses. Everything is float32, or float64 where an input is, also
under autocast. Shapes: B samples; [B, ...] latents of any layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefrm.flow.kernels import Level, Transition, dim_mean, level, precise, transition, wide
from prefrm.flow.settings import Likelihood, Method

__all__ = [
    "Terms",
    "matching_error",
    "matching_levels",
    "matching_terms",
    "noised",
    "probe_scores",
    "transition_terms",
]

# AWM's exponent and offset of the generalized Huber function, and DiffusionNFT's least scale.
HUBER_POWER, HUBER_OFFSET, SELF_FLOOR = 0.25, 1e-10, 1e-5
PROBE_OFFSET = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one step, or one noise level, of B samples contributes to a loss. [B] or [B, ...] each.

    Attributes:
        advantage: [B].
        s: noise level, [B].
        dt: s - s' of a transition, > 0; 0 of a noise level.
        weight: weight of the step in the objective (`objectives.step_weights`).
        v: velocity of the policy, which carries the gradient.
        log_prob: of the policy; of matching, minus the weighted error.
        log_prob_old: of the policy that drew the samples.
        log_prob_ref: of the reference, where it is evaluated.
        v_old: velocity of the old policy (the second adapter), where it is evaluated.
        v_ref: velocity of the reference (no adapter), where it is evaluated.
        mean, mean_old, mean_ref: of a transition, of the policy, of the policy that drew the samples, and of
            the reference.
        std: of a transition, [B].
        target: of matching, the velocity noise - x0.
        group: equal numbers for the samples of a group, [B]; of objectives within a group.
    """

    advantage: Tensor
    s: Tensor
    dt: Tensor
    weight: Tensor
    v: Tensor
    log_prob: Tensor
    log_prob_old: Tensor
    log_prob_ref: Tensor | None = None
    v_old: Tensor | None = None
    v_ref: Tensor | None = None
    mean: Tensor | None = None
    mean_old: Tensor | None = None
    mean_ref: Tensor | None = None
    std: Tensor | None = None
    target: Tensor | None = None
    group: Tensor | None = None


def transition_terms(
    method: Method,
    *,
    x: Tensor,
    x_next: Tensor,
    v: Tensor,
    s: Level,
    s_next: Level,
    s_after_first: float,
    advantage: Tensor,
    v_rollout: Tensor | None = None,
    v_old: Tensor | None = None,
    v_ref: Tensor | None = None,
    noise: float | None = None,
    weight: Level = 1.0,
    group: Tensor | None = None,
    pixel_map: Tensor | None = None,
) -> Terms:
    """Terms of one recorded stochastic step.

    Args:
        method: its kernel and noise.
        x, x_next: recorded states before and after the step, [B, ...].
        v: velocity of the policy at (x, s).
        s, s_next: noise levels, floats or [B].
        s_after_first: level s_1 of the grid.
        advantage: [B].
        v_rollout: velocity that was recorded when the samples were drawn; None stands for an on-policy
            update, whose ratio is 1.
        v_old, v_ref: velocities of the old policy and of the reference, where the method needs them.
        noise: of this depth of a tree; None is the method's.
        weight: of the step.
        group: [B].
        pixel_map: broadcasts to `x`; weights the log-probability (`prefrm.flow.maps`).
    """
    a = method.rollout.noise if noise is None else noise

    def step(velocity: Tensor) -> Transition:
        return transition(method.rollout.kernel, a, x, velocity, s, s_next, s_after_first)

    now, old = step(v), step((v if v_rollout is None else v_rollout).detach())
    ref = None if v_ref is None else step(v_ref.detach())
    common = _common(now.mean, advantage, s, weight, group, v, v_old, v_ref)
    return Terms(
        **common,
        dt=common["s"] - level(s_next, now.mean),
        log_prob=now.log_prob(x_next, pixel_map),
        log_prob_old=old.log_prob(x_next, pixel_map),
        log_prob_ref=None if ref is None else ref.log_prob(x_next, pixel_map),
        mean=now.mean,
        mean_old=old.mean,
        mean_ref=None if ref is None else ref.mean,
        std=now.std.expand(len(now.mean)),
    )


def matching_terms(
    method: Method,
    *,
    x0: Tensor,
    noise: Tensor,
    v: Tensor,
    s: Level,
    advantage: Tensor,
    v_rollout: Tensor | None = None,
    v_old: Tensor | None = None,
    v_ref: Tensor | None = None,
    weight: Level = 1.0,
    group: Tensor | None = None,
    target: Tensor | None = None,
) -> Terms:
    """Terms of one noise level of finished samples; arguments as of `transition_terms`.

    Args:
        method: its weight of the matching error.
        x0, noise: the samples and the noise with which they were `noised`, [B, ...].
        v: velocity of the policy at the noised samples.
        s: noise level, float or [B].
        target: in place of noise - x0 (`gradients.adjoint_target`).
    """
    x0, noise = precise(x0.detach()), precise(noise)
    target = noise - x0 if target is None else precise(target.detach())

    def log_prob(velocity: Tensor) -> Tensor:
        return -matching_error(method.likelihood.weight, velocity, target, s)

    now = log_prob(v)
    common = _common(target, advantage, s, weight, group, v, v_old, v_ref)
    return Terms(
        **common,
        dt=torch.zeros_like(common["s"]),
        log_prob=now,
        log_prob_old=now.detach() if v_rollout is None else log_prob(v_rollout.detach()),
        log_prob_ref=None if v_ref is None else log_prob(v_ref.detach()),
        target=target,
    )


def noised(x0: Tensor, noise: Tensor, s: Level) -> Tensor:
    """x_s = (1 - s) x0 + s noise, [B, ...]."""
    x0, noise = precise(x0), precise(noise)
    s = wide(level(s, x0), x0)
    return (1 - s) * x0 + s * noise


def matching_error(kind: str, v: Tensor, target: Tensor, s: Level) -> Tensor:
    """Mean of (v - target)^2, weighted as `Likelihood.weight` says, [B], >= 0."""
    gap = precise(v) - precise(target)
    s, error = level(s, gap), dim_mean(gap**2)
    if kind == "ghuber":
        power = (error + HUBER_OFFSET) ** HUBER_POWER - HUBER_OFFSET**HUBER_POWER
        return power * s / HUBER_POWER
    if kind == "self":
        # In x0, whose error is s times that of v.
        return s**2 * error / (s * dim_mean(gap.detach().abs())).clamp(min=SELF_FLOOR)
    return error * {"uniform": torch.ones_like(s), "t": s, "t2": s**2}[kind]


def matching_levels(likelihood: Likelihood, total: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Steps i of the grid, ascending, at whose levels s_i a sample is trained.

    Draw them, like the noise, from a seed of the sample, or of the group with `shared_noise`.

    Args:
        likelihood: of the method.
        total: T, steps of the rollout; the level s_(T-1) is never used.
        rng: draws one level from each of `times` equal parts of the grid.
    """
    levels = np.arange(1 if likelihood.skip_first else 0, max(total - 1, 1))
    if not likelihood.times or likelihood.times >= len(levels):
        return tuple(int(i) for i in levels)
    edges = np.linspace(0, len(levels), likelihood.times + 1)
    places = np.floor(edges[:-1] + rng.random(likelihood.times) * np.diff(edges))
    return tuple(int(levels[int(place)]) for place in places)


def probe_scores(
    velocity: Callable[[int, Tensor], Tensor],
    x0: Tensor,
    noise: Sequence[Tensor],
    steps: Sequence[int],
    sigmas: Sequence[float],
) -> Tensor:
    """SOLACE's confidence of the model in its samples, [B, len(steps)]: minus log of the probes' error.

    Args:
        velocity: of the policy without guidance, at a step of the grid and a state.
        x0: finished samples [B, ...].
        noise: half of the probes, [B, ...] each; the others are their negatives.
        steps: of the grid; the paper takes the second half of the rollout's.
        sigmas: the grid s_0 .. s_T.
    """
    scores = []
    for i in steps:
        errors = [
            matching_error("uniform", velocity(i, noised(x0, e, sigmas[i])), e - x0, sigmas[i])
            for half in noise
            for e in (half, -half)
        ]
        scores.append(-torch.log(torch.stack(errors).mean(0) + PROBE_OFFSET))
    return torch.stack(scores, dim=1)


def _common(
    like: Tensor,
    advantage: Tensor,
    s: Level,
    weight: Level,
    group: Tensor | None,
    v: Tensor,
    v_old: Tensor | None,
    v_ref: Tensor | None,
) -> dict[str, Tensor]:
    batch = len(like)
    rows = {
        "advantage": level(advantage, like),
        "s": level(s, like).expand(batch),
        "weight": level(weight, like).expand(batch),
    }
    assert rows["advantage"].shape == (batch,), "advantages are one number for each sample"
    optional = {"group": group, "v_old": v_old, "v_ref": v_ref}
    others = {name: value.detach() for name, value in optional.items() if value is not None}
    return rows | others | {"v": v}
