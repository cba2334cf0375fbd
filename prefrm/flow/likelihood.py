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

__all__ = [
    "LEVEL_POWERS",
    "Terms",
    "matching_error",
    "matching_levels",
    "noised",
    "probe_scores",
    "squared_distance",
]

# AWM's exponent and offset of the generalized Huber function, DiffusionNFT's least scale, SOLACE's offset.
HUBER_POWER, HUBER_OFFSET, SELF_FLOOR, PROBE_OFFSET = 0.25, 1e-10, 1e-5, 1e-6

LEVEL_POWERS = {"uniform": 0, "t": 1, "t2": 2}
"""Powers of the noise level by `Likelihood.weight`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Inputs of a loss: one step, or one noise level, of B samples."""

    method: Method
    advantage: Tensor  # [B]
    s: Level
    v: Tensor  # velocity of the policy, [B, ...]; it carries the gradient
    v_rollout: Tensor | None = None  # of the policy that drew; None stands for an on-policy update
    v_old: Tensor | None = None  # of the old policy; None stands for the policy in training
    v_ref: Tensor | None = None  # of the reference, where the method needs it
    weight: Level = 1.0  # of the step in the objective (`objectives.step_weights`)
    group: Tensor | None = None  # [B], equal for the samples of a group; of objectives within a group
    target: Tensor | None = None  # matching: the velocity noise - x0, or `gradients.adjoint_target`, [B, ...]
    # Of a transition: the recorded states before and after the step, [B, ...]; the next noise level; the
    # level s_1 of the grid; the noise level of its depth in a tree, None is the method's.
    x: Tensor | None = None
    x_next: Tensor | None = None
    s_next: Level = 0.0
    s_after_first: float = 1.0
    noise: float | None = None
    pixel_map: Tensor | None = None  # broadcasts to `x`; weights the log-probability of a transition

    def __post_init__(self) -> None:
        assert self.advantage.shape == (len(self.v),), "advantages are one number for each sample"

    @property
    def rollout_velocity(self) -> Tensor:
        """`v_rollout`, or the policy's velocity without its gradient."""
        return self.v.detach() if self.v_rollout is None else self.v_rollout

    @property
    def old_velocity(self) -> Tensor:
        """`v_old`, or the policy's velocity without its gradient."""
        return self.v.detach() if self.v_old is None else self.v_old

    def transition(self, v: Tensor) -> Transition:
        """The transition that a velocity [B, ...] gives."""
        assert self.x is not None
        rollout = self.method.rollout
        noise = rollout.noise if self.noise is None else self.noise
        return transition(rollout.kernel, noise, self.x, v, self.s, self.s_next, self.s_after_first)

    def log_prob(self, v: Tensor) -> Tensor:
        """Log-likelihood of the samples, of the method's kind, under a velocity [B, ...]: [B]."""
        if self.target is not None:
            return -matching_error(self.method.likelihood.weight, v, self.target, self.s)
        assert self.x_next is not None
        return self.transition(v).log_prob(self.x_next, self.pixel_map)

    def gain(self, other: Tensor | None) -> Tensor:
        """Log-likelihood under the policy minus that under another velocity, [B]."""
        assert other is not None
        return self.log_prob(self.v) - self.log_prob(other.detach())

    def divergence(self, other: Tensor | None) -> Tensor:
        """KL divergence of the policy's transition and another velocity's, per dimension, [B]."""
        assert other is not None
        now = self.transition(self.v)
        return squared_distance(now.mean, self.transition(other).mean) / (2 * now.std**2)


def squared_distance(a: Tensor, b: Tensor | None) -> Tensor:
    """Mean of (a - b)^2 over all dimensions but the first, [B]; `b` gets no gradient."""
    assert b is not None
    return dim_mean((precise(a) - precise(b.detach())) ** 2)


def noised(x0: Tensor, noise: Tensor, s: Level) -> Tensor:
    """x_s = (1 - s) x0 + s noise, [B, ...]."""
    x0, noise = precise(x0), precise(noise)
    s = wide(level(s, x0), x0)
    return (1 - s) * x0 + s * noise


def matching_error(kind: str, v: Tensor, target: Tensor, s: Level) -> Tensor:
    """Mean of (v - target)^2, weighted as `Likelihood.weight` says, [B], >= 0."""
    error = squared_distance(v, target)
    s = level(s, error)
    if kind == "ghuber":
        huber: Tensor = torch.pow(error + HUBER_OFFSET, HUBER_POWER) - HUBER_OFFSET**HUBER_POWER
        return s * huber / HUBER_POWER
    if kind == "self":
        # In x0, whose error is s times that of v.
        size = s * dim_mean((precise(v.detach()) - precise(target.detach())).abs())
        return s**2 * error / size.clamp(min=SELF_FLOOR)
    return error * s.pow(LEVEL_POWERS[kind])


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
    probes = [e for half in noise for e in (half, -half)]

    def error(i: int) -> Tensor:
        errors = [squared_distance(velocity(i, noised(x0, e, sigmas[i])), e - x0) for e in probes]
        return torch.stack(errors).mean(0)

    return torch.stack([-torch.log(error(i) + PROBE_OFFSET) for i in steps], dim=1)
