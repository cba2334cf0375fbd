"""Heads: from the last hidden state of each readout to outcomes. Independent of tokenizer and images.

A head reads each hidden state (`read`) and compares two readings (`compare`). The verdict head
reads a pair at once, so its reading is the outcome. Outcomes are log-odds [N] that the first of two
is preferred or, of a judge with ties, log-probabilities [N, 3] of first, second and neither; `log_odds`
turns either into what an engine merges. All is computed in float32, under autocast as well.

Shapes: R readouts, N comparisons, D hidden, M embedding, A answers.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn.functional import logsigmoid, normalize

from prefrm.judge.precision import full_precision
from prefrm.manifest.spec import JudgeSpec

__all__ = ["TIE_STRENGTH", "EmbeddingHead", "Head", "ScalarHead", "VerdictHead", "build_head", "log_odds"]

TIE_STRENGTH = 5.0
"""The k of Bradley-Terry with ties: 1 never ties. VideoAlign's value (arXiv 2501.13918, section 3.3)."""
GPM_TEMPERATURE = 0.1
"""Where the scale of an embedding head starts (arXiv 2410.02197)."""


class Head(nn.Module, ABC):
    """A positive learnable scale on the log-odds, kept as its logarithm, and a reading in two steps."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale), dtype=torch.float32))

    @property
    def scale(self) -> torch.Tensor:
        """The factor of the log-odds."""
        return self.log_scale.float().exp()

    @abstractmethod
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """A reading of each hidden state, in float32.

        Args:
            hidden_RD: the last hidden states at the readout positions, after the final norm.
            answers_AD: the language model's output rows of the template's answers.
        """

    @abstractmethod
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The outcomes of N comparisons, in float32, from the readings of their first and second images."""


class VerdictHead(Head):
    """Log-odds of answering "1" rather than "2", read off the language model's own output rows.

    Its one parameter is the scale, 1 at the start, so an untrained head gives exactly the language
    model's log-odds. With a third answer, the log-probabilities of the three.
    """

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        if len(answers_AD) == 2:
            direction_D = answers_AD[0] - answers_AD[1]
            return (hidden_RD @ direction_D) * self.scale
        return (hidden_RD @ answers_AD.T * self.scale).log_softmax(dim=-1)

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        # Both are the one reading of the pair, which is the outcome.
        return first


class ScalarHead(Head):
    """A utility for each image; the log-odds of a comparison are the difference (Bradley-Terry 1952).

    With ties, Bradley-Terry with ties (Rao and Kupper 1967; VideoAlign, arXiv 2501.13918).
    """

    def __init__(self, *, hidden: int, ties: bool) -> None:
        super().__init__()
        self.weight_D = nn.Parameter(torch.randn(hidden, dtype=torch.float32) / math.sqrt(hidden + 1))
        self.ties = ties

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        return (hidden_RD @ self.weight_D) * self.scale

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        d_N = first - second
        if not self.ties:
            return d_N
        bar = math.log(TIE_STRENGTH)
        win_N, loss_N = logsigmoid(d_N - bar), logsigmoid(-d_N - bar)
        tie_N = win_N + loss_N + math.log(TIE_STRENGTH**2 - 1)
        return torch.stack([win_N, loss_N, tie_N], dim=-1)


class EmbeddingHead(Head):
    """A unit vector for each image; log-odds are `scale * <R v_first, v_second>` (arXiv 2410.02197).

    R is block-diagonal and skew-symmetric, with blocks [[0, -1], [1, 0]], so the comparison of an image
    with itself is 0 and a swap changes the sign; unlike differences, it can be intransitive.
    """

    def __init__(self, *, hidden: int, size: int) -> None:
        super().__init__(scale=1 / GPM_TEMPERATURE)
        self.weight_MD = nn.Parameter(torch.randn(size, hidden, dtype=torch.float32) / math.sqrt(hidden + 1))

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        return normalize(hidden_RD @ self.weight_MD.T, dim=-1)

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        a, b = first[..., 0::2], first[..., 1::2]
        c, d = second[..., 0::2], second[..., 1::2]
        return (a * d - b * c).sum(dim=-1) * self.scale


def build_head(spec: JudgeSpec, hidden: int) -> Head:
    """The head that a specification names, for hidden states of that size; random where it has weights."""
    if spec.head == "scalar":
        return ScalarHead(hidden=hidden, ties=spec.ties)
    if spec.head == "embedding":
        return EmbeddingHead(hidden=hidden, size=spec.embedding_dim)
    return VerdictHead()


@full_precision
def log_odds(outcomes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-odds [N] that the first is preferred, a tie counting half to each, and P(tie) [N] if known."""
    if outcomes.ndim == 1:
        return outcomes, None
    win_N, loss_N, tie_N = outcomes.unbind(dim=-1)
    half_N = tie_N - math.log(2)
    return torch.logaddexp(win_N, half_N) - torch.logaddexp(loss_N, half_N), tie_N.exp()
