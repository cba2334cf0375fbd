"""Rewards as trainers hold them, as float64 arrays. Needs no torch: a tensor is known by its `detach`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prefrm.errors import DataError
from prefrm.winmatrix import Doubles

__all__ = ["Numbers", "at_steps", "doubles"]

Numbers = Any
"""An array or tensor of booleans, integers or floats, or nested lists of numbers, None and tensors."""

# Of numpy's kinds: strings, bytes, complex numbers, dates and durations, which numpy would convert.
NOT_REAL = "USOcMm"


def doubles(values: Numbers) -> Doubles:
    """Values of any numeric type, precision and device as a float64 array of their shape.

    A tensor may be on an accelerator and require a gradient; none flows through this. None becomes NaN.

    Raises:
        DataError: the values are not real numbers, or lists of them have different lengths.
    """
    try:
        array = np.asarray(_plain(values))
        if array.dtype.kind in NOT_REAL and array.size:
            raise TypeError(f"their type is {array.dtype}")
        return array.astype(np.float64)
    # Each library has errors of its own for what it cannot convert, such as tensors without data.
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(
            f"rewards are real numbers, or None, in an array, a tensor or lists of one length; received a "
            f"{type(values).__name__} that cannot be read: {reason}"
        ) from error


def at_steps(rows: Sequence[Sequence[float]], steps: int) -> Doubles:
    """Weights [M, T] at each step, from M rows of weights of equal parts of the steps."""
    return np.stack([np.asarray(row, dtype=np.float64)[np.arange(steps) * len(row) // steps] for row in rows])


def _plain(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype == object and values.ndim:
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        # numpy has no bfloat16, and torch no float64 on every accelerator.
        return (tensor if tensor.is_complex() else tensor.double()).numpy()
    return np.nan if values is None else values
