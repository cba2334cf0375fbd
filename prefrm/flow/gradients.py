"""Gradients of a differentiable scorer through the sampler: ReFL, DRaFT-K, LeapAlign, adjoint matching.

The first three are one function: `leap` from one recorded state to x0 in jumps that each cost one evaluation
of the velocity. Adjoint matching in closed form moves the target of a matching loss (`adjoint_target`).
Shapes: B samples; T steps.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from prefrm.flow.kernels import Level, precise, wide
from prefrm.flow.settings import Objective

__all__ = ["adjoint_target", "leap", "utility_gradient", "utility_loss"]


def leap(
    velocity: Callable[[int, Tensor], Tensor],
    path: Sequence[Tensor],
    sigmas: Sequence[float],
    points: Sequence[int],
    *,
    anchored: bool,
    nested: float = 1.0,
) -> Tensor:
    """x0 [B, ...] with a gradient, by jumps x_b = x_a + (s_b - s_a) v(x_a, s_a) between consecutive points.

    Args:
        velocity: of the policy, with a gradient, at a step of the grid and a state [B, ...].
        path: recorded states x_0 .. x_T of a rollout without gradient.
        sigmas: the grid s_0 .. s_T.
        points: as of `Objective.points`.
        anchored: after each jump take the recorded state's value, and the jump's gradient (LeapAlign).
        nested: share of the gradient that passes through the input of a later jump's velocity (LeapAlign).
    """
    x = precise(path[points[0]].detach())
    for a, b in pairwise(points):
        v = velocity(a, nested * x + (1 - nested) * x.detach())
        x = x + (sigmas[b] - sigmas[a]) * precise(v)
        if anchored:
            x = precise(path[b].detach()) + (x - x.detach())
    return x


def utility_loss(objective: Objective, utilities: Tensor) -> Tensor:
    """Loss [B] of utilities [B]: scale * max(margin - u, 0), or -scale * u without a margin."""
    utilities = precise(utilities)
    missed = -utilities if objective.margin is None else torch.relu(objective.margin - utilities)
    return objective.scale * missed


def utility_gradient(utilities: Callable[[Tensor], Tensor], x0: Tensor) -> Tensor:
    """Gradient of each sample's utility in x0 [B, ...]; `utilities` decodes x0 and scores it, [B]."""
    with torch.enable_grad():
        leaf = precise(x0.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(utilities(leaf).float().sum(), leaf)
    return gradient


def adjoint_target(v_ref: Tensor, gradient: Tensor, s: Level, strength: float) -> Tensor:
    """Target v_ref - strength s / (s^2 + (1 - s)^2) * gradient of the velocity at noised samples, [B, ...].

    This is the optimal control under memoryless noise with the lean adjoint of a base whose samples are
    standard normal: its drift is linear, so the adjoint is the reward's gradient in x0 times
    (1 - s) / (s^2 + (1 - s)^2).
    """
    v_ref, gradient = precise(v_ref.detach()), precise(gradient)
    s = wide(s, v_ref)
    return v_ref - strength * s / (s**2 + (1 - s) ** 2) * gradient
