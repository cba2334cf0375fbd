"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) in single precision.

`torch.optim.Muon` multiplies in bfloat16, which takes a CPU without such instructions longer than the rest of
a training step of a model this small. Matrices of one shape are orthogonalized together.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Muon", "orthogonalized"]

# N matrices, R rows, C columns
# Coefficients and number of the Newton-Schulz iterations: Jordan et al.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Makes an update as large as one of AdamW: arXiv 2502.16982, section 2.2.
RMS = 0.2
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum (Nesterov's), for matrices, with decoupled weight decay."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                updates_NRC = orthogonalized(
                    torch.stack([self._momentum(m, group["momentum"]) for m in matrices])
                )
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    matrices, list(updates_NRC), alpha=-group["lr"] * RMS * math.sqrt(max(shape))
                )

    def _momentum(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        mean: torch.Tensor = state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(mean, momentum)  # type: ignore[union-attr]


def orthogonalized(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """About the nearest orthogonal matrices: all singular values become about 1."""
    if matrices_NRC.shape[1] > matrices_NRC.shape[2]:
        return orthogonalized(matrices_NRC.mT).mT
    a, b, c = COEFFICIENTS
    x_NRC: torch.Tensor = matrices_NRC / matrices_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram_NRR = x_NRC @ x_NRC.mT
        x_NRC = torch.baddbmm(
            x_NRC, torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c), x_NRC, beta=a
        )
    return x_NRC
