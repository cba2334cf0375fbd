"""Float32 computation of everything that decides a probability, under any autocast."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

__all__ = ["full_precision"]

P = ParamSpec("P")
T = TypeVar("T")


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` in float32 under any autocast: floating-point tensors among its arguments are converted.

    A cast inside the function does not suffice: autocast rounds the operands of each matrix product again.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        values = (*args, *kwargs.values())
        device = next(value.device.type for value in values if isinstance(value, torch.Tensor))
        named = {name: _float32(value) for name, value in kwargs.items()}
        with torch.autocast(device, enabled=False):
            return function(*map(_float32, args), **named)  # type: ignore[arg-type]

    return run


def _float32(value: object) -> object:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float()
    return value
