"""Transition kernels of stochastic sampling steps, and their log-probability.

One formula covers every published sampler (notation of `prefrm.flow.settings`):

    mean = (1 - s') x0hat + c x1hat,    x' = mean + std * noise,    x0hat = x - s v,    x1hat = x + (1 - s) v

| kernel | std | c |
|---|---|---|
| ode: Euler | 0 | s' |
| flow: Flow-GRPO, arXiv 2505.05470 | a sqrt(s / (1 - s)) sqrt(s - s') | s' - std^2 / (2 s) |
| dance: DanceGRPO, arXiv 2505.07818 | eta sqrt(s - s') | s' - std^2 / (2 s) |
| cps: FlowCPS, arXiv 2509.05952 | s' sin(a pi / 2) | sqrt(s'^2 - std^2) |
| ddim: DDIM, arXiv 2010.02502 | eta (s' / s) sqrt(s^2 - s'^2 (1 - s)^2 / (1 - s')^2) | sqrt(s'^2 - std^2) |

Everything is computed in float32, or in float64 where an input is float64, also under autocast.
Shapes: B samples; [B, ...] latents of any layout. Noise levels are floats, or [B].
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefrm.flow.settings import Kernel

__all__ = [
    "Level",
    "Transition",
    "ddim_std",
    "dim_mean",
    "gradient_size",
    "precise",
    "spread",
    "transition",
    "wide",
]

Level = float | Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Gaussian p(x' | x) of one step.

    Attributes:
        mean: [B, ...], float32 or float64.
        std: scalar or [B], >= 0; 0 is deterministic.
        normalized: False for "cps", whose published log-probability is -(x' - mean)^2 alone.
    """

    mean: Tensor
    std: Tensor
    normalized: bool = True

    def sample(self, noise: Tensor) -> Tensor:
        """x' [B, ...] from standard normal noise of the same shape."""
        return self.mean + wide(self.std, self.mean) * precise(noise)

    def log_prob(self, x_next: Tensor, weights: Tensor | None = None) -> Tensor:
        """Log-density of the state `x_next` [B, ...], detached: the MEAN over its other dimensions, [B].

        `weights` broadcast to `x_next` and multiply each element's log-density within the mean (ViPO).
        """
        density = -((precise(x_next.detach()) - self.mean) ** 2)
        if self.normalized:
            std = wide(self.std, self.mean)
            density = density / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)
        return dim_mean(density if weights is None else density * precise(weights))


def transition(
    kernel: Kernel, noise: float, x: Tensor, v: Tensor, s: Level, s_next: Level, s_after_first: float
) -> Transition:
    """The transition from state `x` [B, ...] with velocity `v` at noise level `s` to `s_next` < s.

    A stochastic step needs s_next > 0. `noise` is the kernel's a or eta, in (0, 1] for "cps" and "ddim";
    `s_after_first` is the level s_1 of the grid, which replaces s = 1 in the denominator 1 - s of "flow".
    """
    x, v = precise(x), precise(v)
    s, s_next = (torch.as_tensor(one, dtype=x.dtype, device=x.device) for one in (s, s_next))
    std, c = spread(kernel, noise, s, s_next, s_after_first)
    mean = wide(1 - s_next, x) * (x - wide(s, x) * v) + wide(c, x) * (x + wide(1 - s, x) * v)
    return Transition(mean=mean, std=std, normalized=kernel != "cps")


def spread(
    kernel: Kernel, noise: float, s: Tensor, s_next: Tensor, s_after_first: float
) -> tuple[Tensor, Tensor]:
    """(std, c) of the table above, each in the shape of `s`."""
    if kernel == "ode":
        return torch.zeros_like(s), s_next
    if kernel in ("flow", "dance"):
        below_one = torch.where(s >= 1, torch.full_like(s, s_after_first), s)
        g = noise * (torch.sqrt(s / (1 - below_one)) if kernel == "flow" else torch.ones_like(s))
        std = g * torch.sqrt(s - s_next)
        return std, s_next - std**2 / (2 * s)
    assert 0 < noise <= 1, f"{kernel} takes a noise level in (0, 1]; received {noise}"
    cps = s_next * math.sin(noise * math.pi / 2)
    std = cps if kernel == "cps" else ddim_std(noise, 1 - s, s, 1 - s_next, s_next)
    return std, torch.sqrt((s_next**2 - std**2).clamp(min=0))


def ddim_std(eta: float, alpha: Any, sigma: Any, alpha_next: Any, sigma_next: Any) -> Any:
    """Standard deviation of DDIM's step between any x = alpha x0 + sigma x1; tensors, [B] or scalar.

    For alpha = sqrt(A), sigma = sqrt(1 - A) it is eta sqrt((1 - A') / (1 - A)) sqrt(1 - A / A'), as in DDPO.
    """
    return eta * sigma_next / sigma * torch.sqrt(sigma**2 - (alpha / alpha_next * sigma_next) ** 2)


def gradient_size(kernel: Kernel, noise: float, s: Tensor, s_next: Tensor, s_after_first: float) -> Tensor:
    """w_s = |d mean / d v| / std, the gradient of the log-probability in v; infinite at std 0."""
    std, c = spread(kernel, noise, s, s_next, s_after_first)
    return torch.abs(c * (1 - s) - s * (1 - s_next)) / std


def precise(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def wide(values: Level, like: Tensor) -> Tensor:
    """A number or [B], in the type of `like` [B, ...] and so that it broadcasts over its dimensions."""
    values = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim else values


def dim_mean(x: Tensor) -> Tensor:
    """Mean over all dimensions but the first: [B, ...] to [B]."""
    return x.flatten(1).mean(1) if x.ndim > 1 else x
