"""Training losses of the judges, on log-odds. No model, no reduction over devices.

Shapes: B pairs.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["verdict_cross_entropy"]


def verdict_cross_entropy(
    log_odds_B: torch.Tensor, p_B: torch.Tensor, weight_B: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of soft preference targets: the Bradley-Terry likelihood with p in place of 0 and 1.

        sum_b w_b (-p_b log sigmoid(z_b) - (1 - p_b) log sigmoid(-z_b)) / sum_b w_b

    With p = 1 it is `-log sigmoid(z)`, the loss of pairwise reward models (Ouyang et al. 2022,
    arXiv 2203.02155, equation 1); p = 0.5 is a tie and pulls z towards 0.

    Args:
        log_odds_B: z, log-odds that the image shown first is preferred.
        p_B: in [0, 1]; probability that the image shown first is preferred.
        weight_B: > 0; how much each pair counts. None counts them alike.

    Returns:
        A scalar in float32, the weighted mean in nats.
    """
    z_B = log_odds_B.float()
    loss_B = binary_cross_entropy_with_logits(z_B, p_B.to(z_B), reduction="none")
    if weight_B is None:
        return loss_B.mean()
    w_B = weight_B.to(z_B)
    return (w_B * loss_B).sum() / w_B.sum()
