"""How the shipped checkpoints are kept small: trained in single precision, stored in half."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["round_to_half", "store_in_half"]


@torch.no_grad()
def round_to_half(model: torch.nn.Module) -> None:
    """Round the weights to half precision, in place: what is measured is then what is stored."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half())


def store_in_half(weights: Path) -> None:
    """Rewrite a file of weights in half precision.

    The configuration beside it keeps dtype float32, which is what `from_pretrained` gives the weights.
    """
    halves = {name: tensor.to(torch.float16) for name, tensor in load_file(weights).items()}
    assert all(tensor.isfinite().all() for tensor in halves.values())
    save_file(halves, weights, metadata={"format": "pt"})
