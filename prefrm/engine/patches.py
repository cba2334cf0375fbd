"""A vision tower's first layer as the matrix product that it is, where images come cut into patches.

The families of Qwen convolve each patch by itself, with a kernel of the patch's size. That is a product of
the patches with a matrix, which a CPU computes several times as fast as the convolution.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

__all__ = ["patches_as_products"]


@contextmanager
def patches_as_products(tower: nn.Module) -> Iterator[None]:
    """In the block, convolutions of the tower over whole inputs are computed as products."""
    convolutions: list[Any] = [
        module
        for module in tower.modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size == module.stride and module.groups == 1
    ]
    for convolution in convolutions:
        convolution.forward = partial(_product, convolution)
    try:
        yield
    finally:
        for convolution in convolutions:
            # The class's own method is found again.
            del convolution.forward


def _product(convolution: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    if tuple(x.shape[2:]) != convolution.kernel_size or any(convolution.padding):
        return nn.Conv3d.forward(convolution, x)
    found = linear(x.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return found[:, :, None, None, None]
