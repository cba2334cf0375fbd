"""Training losses of the judges, on a head's outcomes. No model, no reduction over devices.

Each is the weighted mean over comparisons, in nats, of the cross-entropy of a soft target, in float32 under
autocast as well. `p` is the probability that the image shown first is preferred; 0.5 is a tie.

    verdict     `bradley_terry`, or with ties `bradley_terry_ties`: restricted to the answers, it is the
                language-model loss of the verdict token
    scalar      the same, of Bradley-Terry (1952) and Bradley-Terry with ties (arXiv 2501.13918); of uncertain
                utilities `uncertain_bradley_terry` (HPSv3, arXiv 2508.03789)
    embedding   `bradley_terry` of a score that need not be a difference (general preference model, arXiv
                2410.02197): `-log sigmoid(<R v_first, v_second> / T)`, 1 / T being the head's learnable scale

Shapes: N comparisons, S nodes of a quadrature.
"""

import math

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from prefrm.judge.precision import full_precision

__all__ = ["bradley_terry", "bradley_terry_ties", "preference_loss", "uncertain_bradley_terry"]

NODES = 64
"""Of Gauss-Hermite quadrature; the loss is right to 1e-3 up to a standard deviation of 8."""


@full_precision
def bradley_terry(
    log_odds_N: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of soft targets under Bradley-Terry: z = u_first - u_second.

        sum_n w_n (-p_n log sigmoid(z_n) - (1 - p_n) log sigmoid(-z_n)) / sum_n w_n

    With p = 1 it is `-log sigmoid(z)`, the loss of pairwise reward models (Ouyang et al. 2022,
    arXiv 2203.02155, equation 1); p = 0.5 is a tie and pulls z towards 0.

    Args:
        log_odds_N: z, log-odds that the image shown first is preferred.
        p_N: in [0, 1]; probability that the image shown first is preferred.
        weight_N: > 0; how much each comparison counts. None counts them alike.

    Returns:
        A scalar in float32.
    """
    loss_N = binary_cross_entropy_with_logits(log_odds_N, p_N.to(log_odds_N), reduction="none")
    return _weighted_mean(loss_N, weight_N)


@full_precision
def bradley_terry_ties(
    outcomes_N3: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Bradley-Terry with ties (BTT, arXiv 2501.13918): cross-entropy over first, second and neither.

    For d = u_first - u_second and k = 5 a strict comparison costs `-log sigmoid(d - ln k)` and a tie
    `-log sigmoid(d - ln k) - log sigmoid(-d - ln k) - ln(k^2 - 1)`. A target between a tie and a strict
    preference is the mixture of the two with that p: 0.75 is half of each.

    Args:
        outcomes_N3: log-probabilities of first, second and neither, as `ScalarHead.compare` gives them.
        p_N: in [0, 1].
        weight_N: > 0; None counts all alike.
    """
    target_N3 = torch.stack([2 * p_N - 1, 1 - 2 * p_N, 1 - (2 * p_N - 1).abs()], dim=-1).clamp(min=0)
    loss_N = -(target_N3.to(outcomes_N3) * outcomes_N3).sum(dim=-1)
    return _weighted_mean(loss_N, weight_N)


@full_precision
def uncertain_bradley_terry(
    outcomes_N2: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """The expectation of `bradley_terry` over normally distributed log-odds (HPSv3, arXiv 2508.03789).

    HPSv3's code estimates it from 1,000 samples; here it is a Gauss-Hermite quadrature, without noise. It
    grows with the standard deviation whatever the target is (Jensen's inequality), so training shrinks that.

    Args:
        outcomes_N2: mean and standard deviation of the log-odds, as `MlpHead.compare` gives them.
        p_N: in [0, 1].
        weight_N: > 0; None counts all alike.
    """
    nodes, shares = (torch.from_numpy(x).to(outcomes_N2) for x in np.polynomial.hermite.hermgauss(NODES))
    mean_N, deviation_N = outcomes_N2.unbind(dim=-1)
    z_NS = mean_N[:, None] + math.sqrt(2) * deviation_N[:, None] * nodes
    # A logarithm of a sigmoid is -softplus(-z).
    win_N, loss_N = (softplus(sign * z_NS) @ shares / math.sqrt(math.pi) for sign in (-1, 1))
    p_N = p_N.to(mean_N)
    return _weighted_mean(p_N * win_N + (1 - p_N) * loss_N, weight_N)


def preference_loss(
    outcomes: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss that trains any head: log-odds [N], log-probabilities [N, 3], or uncertain log-odds [N, 2]."""
    if outcomes.ndim == 1:
        return bradley_terry(outcomes, p_N, weight_N)
    loss = uncertain_bradley_terry if outcomes.shape[-1] == 2 else bradley_terry_ties
    return loss(outcomes, p_N, weight_N)


def _weighted_mean(loss_N: torch.Tensor, weight_N: torch.Tensor | None) -> torch.Tensor:
    if weight_N is None:
        return loss_N.mean()
    w_N = weight_N.to(loss_N)
    return (w_N * loss_N).sum() / w_N.sum()
