"""How the shipped checkpoints are kept small."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["store_in_half"]


def store_in_half(folder: Path) -> None:
    """Rewrite a saved checkpoint's weights in half precision.

    The configuration keeps dtype float32, which is what `from_pretrained` gives the weights.
    """
    weights = folder / "model.safetensors"
    halves = {name: tensor.to(torch.float16) for name, tensor in load_file(weights).items()}
    save_file(halves, weights, metadata={"format": "pt"})
