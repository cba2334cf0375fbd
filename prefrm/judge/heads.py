"""Heads: from the last hidden state of the readout to log-odds. They know no tokenizer and no images.

Shapes: B pairs, D hidden.
"""

import torch
from torch import nn

__all__ = ["VerdictHead"]


class VerdictHead(nn.Module):
    """Log-odds of answering "1" rather than "2", read off the language model's own output rows.

    Its one parameter is the logarithm of a positive scale on the log-odds, 0 at the start, so an
    untrained head says exactly what the language model says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float32))

    def forward(self, hidden_BD: torch.Tensor, first_D: torch.Tensor, second_D: torch.Tensor) -> torch.Tensor:
        """Log-odds [B] in float32 that the image shown first is preferred.

        Args:
            hidden_BD: the last hidden state at the readout position, after the final norm.
            first_D: the output row of the answer that names the image shown first.
            second_D: the output row of the answer that names the second.
        """
        direction_D = first_D.float() - second_D.float()
        return (hidden_BD.float() @ direction_D) * self.log_scale.float().exp()
