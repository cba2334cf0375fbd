"""Training losses of the judges, on a head's outcomes. No model, no reduction over devices.

All are computed in float32, under autocast as well. Each is the weighted mean over comparisons, in nats.
`p` is the probability that the image shown first is preferred; 0.5 is a tie. The learnable scale of each
is the head's.

Shapes: N comparisons.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from prefrm.judge.precision import full_precision

__all__ = [
    "Loss",
    "bradley_terry",
    "bradley_terry_ties",
    "general_preference",
    "loss_of",
    "verdict_cross_entropy",
]

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Takes a head's outcomes, targets p_N and weights_N (or None); returns a scalar in float32."""


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


def general_preference(
    score_N: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """The general preference model (arXiv 2410.02197): `-log sigmoid(<R v_first, v_second> / T)`.

    1 / T is the head's learnable scale, which starts at 10. Soft targets as in `bradley_terry`, of which
    this is the case of a score that need not be a difference.
    """
    return bradley_terry(score_N, p_N, weight_N)


def verdict_cross_entropy(
    outcomes: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of the verdict token: "1" against "2", or of the three where a tie has a token.

    Restricted to the answers it is the language-model loss of that one token. Two answers, as log-odds
    [N], are `bradley_terry`; three, as log-probabilities [N, 3], share the targets of `bradley_terry_ties`.
    """
    compare = bradley_terry if outcomes.ndim == 1 else bradley_terry_ties
    return compare(outcomes, p_N, weight_N)


def loss_of(head: str, *, ties: bool) -> Loss:
    """The loss that trains a head, by its name in a `JudgeSpec`."""
    scalar = bradley_terry_ties if ties else bradley_terry
    return {"verdict": verdict_cross_entropy, "scalar": scalar, "embedding": general_preference}[head]


def _weighted_mean(loss_N: torch.Tensor, weight_N: torch.Tensor | None) -> torch.Tensor:
    if weight_N is None:
        return loss_N.mean()
    w_N = weight_N.to(loss_N)
    return (w_N * loss_N).sum() / w_N.sum()
