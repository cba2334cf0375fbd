"""A sample's log-likelihood: of recorded transitions, or minus the matching error at noised copies of it.

Everything is float32, or float64 where an input is, also under autocast.
Shapes: B samples; [B, ...] latents of any layout; noise levels are floats or [B].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefrm.flow.kernels import Level, Transition, dim_mean, level, precise, transition, wide
from prefrm.flow.settings import Likelihood, Method

__all__ = ["Terms", "matching_error", "matching_levels", "noised", "probe_scores"]

# AWM's exponent and offset of the generalized Huber function, DiffusionNFT's least scale, SOLACE's offset.
HUBER_POWER, HUBER_OFFSET, SELF_FLOOR, PROBE_OFFSET = 0.25, 1e-10, 1e-5, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One step, or one noise level, of B samples: what a loss is computed from.

    Attributes:
        method: whose likelihood and kernel count.
        advantage: [B].
        s: noise level.
        v: velocity of the policy, [B, ...]; it carries the gradient.
        v_rollout: recorded velocity of the policy that drew the samples; None stands for an on-policy update.
        v_old, v_ref: velocity of the old policy and of the reference, where the method needs them.
        weight: of the step in the objective (`objectives.step_weights`).
        group: equal numbers for the samples of a group, [B]; of objectives within a group.
        target: of matching, the velocity noise - x0 (or `gradients.adjoint_target`), [B, ...].
        x, x_next: of a transition, the recorded states before and after the step, [B, ...].
        s_next, s_after_first: of a transition, the next noise level, and the level s_1 of the grid.
        noise: of a transition, the noise level of its depth in a tree; None is the method's.
        pixel_map: broadcasts to `x`; weights the log-probability of a transition.
    """

    method: Method
    advantage: Tensor
    s: Level
    v: Tensor
    v_rollout: Tensor | None = None
    v_old: Tensor | None = None
    v_ref: Tensor | None = None
    weight: Level = 1.0
    group: Tensor | None = None
    target: Tensor | None = None
    x: Tensor | None = None
    x_next: Tensor | None = None
    s_next: Level = 0.0
    s_after_first: float = 1.0
    noise: float | None = None
    pixel_map: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.advantage.shape == (len(self.v),), "advantages are one number for each sample"

    @property
    def rollout_velocity(self) -> Tensor:
        """`v_rollout`, or the policy's velocity without its gradient."""
        return self.v.detach() if self.v_rollout is None else self.v_rollout

    def transition(self, v: Tensor) -> Transition:
        """The transition that a velocity [B, ...] gives."""
        assert self.x is not None
        rollout = self.method.rollout
        noise = rollout.noise if self.noise is None else self.noise
        return transition(rollout.kernel, noise, self.x, v, self.s, self.s_next, self.s_after_first)

    def log_prob(self, v: Tensor) -> Tensor:
        """What a velocity [B, ...] says of the samples: the likelihood that the method takes, [B]."""
        if self.target is not None:
            return -matching_error(self.method.likelihood.weight, v, self.target, self.s)
        assert self.x_next is not None
        return self.transition(v).log_prob(self.x_next, self.pixel_map)


def noised(x0: Tensor, noise: Tensor, s: Level) -> Tensor:
    """x_s = (1 - s) x0 + s noise, [B, ...]."""
    x0, noise = precise(x0), precise(noise)
    s = wide(level(s, x0), x0)
    return (1 - s) * x0 + s * noise


def matching_error(kind: str, v: Tensor, target: Tensor, s: Level) -> Tensor:
    """Mean of (v - target)^2, weighted as `Likelihood.weight` says, [B], >= 0."""
    gap = precise(v) - precise(target.detach())
    s, error = level(s, gap), dim_mean(gap**2)
    if kind == "ghuber":
        return s * ((error + HUBER_OFFSET).pow(HUBER_POWER) - HUBER_OFFSET**HUBER_POWER) / HUBER_POWER
    if kind == "self":
        # In x0, whose error is s times that of v.
        return s**2 * error / (s * dim_mean(gap.detach().abs())).clamp(min=SELF_FLOOR)
    return error * s.pow({"uniform": 0, "t": 1, "t2": 2}[kind])


def matching_levels(likelihood: Likelihood, total: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Steps i < T - 1 = total - 1 of the grid, ascending, at whose levels s_i a sample trains.

    One is drawn from each of `times` equal parts of the grid. Seed `rng`, like the generator of the noise, by
    the sample, or by the group with `shared_noise`.
    """
    levels = np.arange(int(likelihood.skip_first), max(total - 1, 1))
    if not 0 < likelihood.times < len(levels):
        return tuple(levels.tolist())
    edges = np.linspace(0, len(levels), likelihood.times + 1)
    places = edges[:-1] + rng.random(likelihood.times) * np.diff(edges)
    return tuple(levels[places.astype(int)].tolist())


def probe_scores(
    velocity: Callable[[int, Tensor], Tensor],
    x0: Tensor,
    noise: Sequence[Tensor],
    steps: Sequence[int],
    sigmas: Sequence[float],
) -> Tensor:
    """SOLACE's confidence of the model in its samples, [B, len(steps)]: minus log of the probes' error.

    Args:
        velocity: of the policy, without guidance, at a step of the grid and a state.
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
