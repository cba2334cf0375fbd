"""A sample's log-likelihood: of recorded transitions, or minus the matching error at noised copies of it.

Everything is float32, or float64 where an input is, also under autocast.
Shapes: B samples; [B, ...] latents of any layout; noise levels are floats or [B].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefrm.flow.kernels import Level, Transition, dim_mean, precise, transition, wide
from prefrm.flow.settings import Method

__all__ = ["Terms", "matching_error", "noised", "probe_scores", "squared_distance"]

# AWM's exponent and offset of the generalized Huber function, DiffusionNFT's least scale, SOLACE's offset.
HUBER_POWER, HUBER_OFFSET, SELF_FLOOR, PROBE_OFFSET = 0.25, 1e-10, 1e-5, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Inputs of a loss: one step, or one noise level, of B samples."""

    method: Method
    advantage: Tensor  # [B]
    s: Level
    v: Tensor  # velocity of the policy, [B, ...]; it carries the gradient
    # Where the loss needs them, of the policy that drew, the old policy and the reference.
    v_rollout: Tensor | None = None
    v_old: Tensor | None = None
    v_ref: Tensor | None = None
    weight: Level = 1.0  # of the step in the objective (`objectives.step_weights`)
    group: Tensor | None = None  # [B], equal for the samples of a group; of objectives within a group
    target: Tensor | None = None  # matching: the velocity noise - x0, or `gradients.adjoint_target`, [B, ...]
    # Of a transition: the recorded states before and after the step, [B, ...]; the next noise level; the
    # level s_1 of the grid; the kernel's a or eta.
    x: Tensor | None = None
    x_next: Tensor | None = None
    s_next: Level = 0.0
    s_after_first: float = 1.0
    noise: float = 0.0
    pixel_map: Tensor | None = None  # broadcasts to `x`; weights the log-probability of a transition

    def __post_init__(self) -> None:
        assert self.advantage.shape == (len(self.v),), "advantages are one number for each sample"

    def transition(self, v: Tensor) -> Transition:
        """The transition that a velocity [B, ...] gives."""
        assert self.x is not None
        kernel = self.method.rollout.kernel
        return transition(kernel, self.noise, self.x, v, self.s, self.s_next, self.s_after_first)

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
    s = wide(s, x0)
    return (1 - s) * x0 + s * noise


def matching_error(kind: str, v: Tensor, target: Tensor, s: Level) -> Tensor:
    """Mean of (v - target)^2, weighted as `Likelihood.weight` says, [B], >= 0."""
    error = squared_distance(v, target)
    s = wide(s, error)
    if kind == "ghuber":
        huber: Tensor = torch.pow(error + HUBER_OFFSET, HUBER_POWER) - HUBER_OFFSET**HUBER_POWER
        return s * huber / HUBER_POWER
    if kind == "self":
        # In x0, whose error is s times that of v.
        size = s * dim_mean((precise(v.detach()) - precise(target.detach())).abs())
        return s**2 * error / size.clamp(min=SELF_FLOOR)
    return error


def probe_scores(
    velocity: Callable[[int, Tensor], Tensor],
    x0: Tensor,
    noise: Sequence[Tensor],
    steps: Sequence[int],
    sigmas: Sequence[float],
) -> Tensor:
    """SOLACE's confidence of the model in samples x0 [B, ...]: minus log of the probes' error, [B, steps].

    `velocity(i, x)` is the policy's, without guidance, at step i of the grid `sigmas`. The probes are
    `noise`, [B, ...] each, and its negatives; the paper's `steps` are the second half of the rollout's.
    """
    probes = [e for half in noise for e in (half, -half)]

    def error(i: int) -> Tensor:
        errors = [squared_distance(velocity(i, noised(x0, e, sigmas[i])), e - x0) for e in probes]
        return torch.stack(errors).mean(0)

    return torch.stack([-torch.log(error(i) + PROBE_OFFSET) for i in steps], dim=1)
