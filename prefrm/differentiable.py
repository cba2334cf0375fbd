"""The protocol of scorers through which a gradient flows to pixels, and a fake. Imports no torch.

Gradient objectives of a policy depend on it.

Shapes: K candidates, H height, W width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

__all__ = ["DifferentiableScorer", "FakeDifferentiableScorer"]


@runtime_checkable
class DifferentiableScorer(Protocol):
    """Anything whose judgement of images has a gradient in their pixels."""

    def utilities(self, prompt: str, pixels: "torch.Tensor") -> "torch.Tensor":
        """One utility for each candidate of a prompt, higher is better: float32 [K], in log-odds (nats).

        Args:
            prompt: what the candidates answer.
            pixels: floats [K, 3, H, W] in [0, 1], RGB.

        The derivative of utility k in candidate k says how that candidate improves while the others stay as
        they are. Parameters of the scorer get no gradient.
        """
        ...


class FakeDifferentiableScorer:
    """A scorer without a model, for tests and examples.

    Args:
        utility: maps (prompt, pixels [K, 3, H, W]) to utilities [K].
    """

    def __init__(self, utility: "Callable[[str, torch.Tensor], torch.Tensor]") -> None:
        self._utility = utility

    def utilities(self, prompt: str, pixels: "torch.Tensor") -> "torch.Tensor":
        """As in the protocol."""
        return self._utility(prompt, pixels)
