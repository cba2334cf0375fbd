"""The protocol of scorers through which a gradient flows to pixels, and a fake. Imports no torch.

Gradient objectives of a policy depend on it.

Shapes: K candidates, H height, W width.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from prefrm.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["DifferentiableScorer", "FakeDifferentiableScorer", "require_plain"]


@runtime_checkable
class DifferentiableScorer(Protocol):
    """Anything whose judgement of images has a gradient in their pixels."""

    def utilities(
        self, prompt: str, pixels: "torch.Tensor", *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> "torch.Tensor":
        """One utility for each candidate of a prompt, higher is better: float32 [K], in log-odds (nats).

        Args:
            prompt: what the candidates answer.
            pixels: floats [K, 3, H, W] in [0, 1], RGB.
            context: encoded images that belong to the prompt.
            criterion: what the candidates are compared by.

        Raises:
            ConfigError: the scorer does not read the context or the criterion.

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

    def utilities(
        self, prompt: str, pixels: "torch.Tensor", *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> "torch.Tensor":
        """As in the protocol; neither context nor criterion has an effect."""
        return self._utility(prompt, pixels)


def require_plain(context: Sequence[bytes], criterion: str) -> None:
    """Raise `ConfigError` if there is a context or a criterion, for scorers that read neither."""
    for name, value in (("context", context), ("criterion", criterion)):
        if value:
            raise ConfigError(f"this judge's gradient has no place for a {name}; leave it out")
