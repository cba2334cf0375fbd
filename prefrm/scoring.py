"""A win matrix as JSON."""

from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.rewards import ranking
from prefrm.winmatrix import WinMatrix

__all__ = ["matrix_to_json"]


def matrix_to_json(matrix: WinMatrix) -> dict[str, Any]:
    """A win matrix as plain lists for JSON, null where a value is NaN.

    Keys: `win_matrix`, `order_gap`, `tie` and `valid` (K lists of K), `win_rate` and `errors` (K), and
    `ranking`: the indices of the candidates that have a win rate, highest first. A number in `win_matrix`
    where `valid` is false was inferred from judged pairs.
    """
    rate = matrix.win_rate(on_missing="drop")
    return {
        "win_matrix": _nullable(matrix.p),
        "win_rate": _nullable(rate),
        "ranking": ranking(matrix),
        "order_gap": _nullable(matrix.order_gap),
        "tie": _nullable(matrix.tie),
        "valid": matrix.valid.tolist(),
        "errors": list(matrix.errors),
    }


def _nullable(values: npt.NDArray[np.float32]) -> Any:
    nullable = values.astype(object)
    nullable[~np.isfinite(values)] = None
    return nullable.tolist()
