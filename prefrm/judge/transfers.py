"""Tensors from the CPU to a device."""

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["to_device"]


def to_device(values: torch.Tensor | Sequence[Any], device: torch.device) -> torch.Tensor:
    """A tensor, or int64 of (nested) numbers, on a device.

    A GPU is not waited for, so that the CPU prepares the next pass while the GPU computes this one: a copy is
    asynchronous if it is from page-locked memory.
    """
    found = values if isinstance(values, torch.Tensor) else torch.tensor(values, dtype=torch.int64)
    if device.type == "cuda" and found.device.type == "cpu":
        return found.pin_memory().to(device, non_blocking=True)
    return found.to(device)
