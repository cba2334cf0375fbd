"""JSON answers, written in short steps: that of the largest request takes seconds."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.scoring import nullable
from serving.steps import Steps

__all__ = ["write_json", "write_list"]

ELEMENTS = 4096


def write_json(value: object) -> Steps[str]:
    """The text of a value, whose dictionaries have keys of text, and which may hold arrays of numbers.

    NaN is null in an array. Elsewhere it raises `ValueError`.
    """
    if isinstance(value, Mapping):
        fields = []
        for key, field in value.items():
            text = yield from write_json(field)
            fields.append(f"{json.dumps(key)}: {text}")
        return f"{{{', '.join(fields)}}}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping | list):
        return (yield from write_list(map(write_json, value)))
    if isinstance(value, list | np.ndarray):
        size = value.size if isinstance(value, np.ndarray) else len(value)
        step = max(1, ELEMENTS * len(value) // max(1, size))
        slices = (value[start : start + step] for start in range(0, len(value), step))
        return (yield from write_list(_elements(part) for part in slices))
    return json.dumps(value, allow_nan=False)


def write_list(elements: Iterable[Steps[str]]) -> Steps[str]:
    """The text of a list, from the texts of its elements."""
    texts = []
    for element in elements:
        text = yield from element
        texts.append(text)
        yield
    return f"[{', '.join(texts)}]"


def _elements(part: list[object] | npt.NDArray[Any]) -> Steps[str]:
    yield
    return json.dumps(nullable(part) if isinstance(part, np.ndarray) else part, allow_nan=False)[1:-1]
