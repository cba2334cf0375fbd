"""Numbers of one win matrix that trainers log and pages draw."""

import numpy as np

from prefrm.winmatrix.matrix import WinMatrix

__all__ = ["matrix_metrics"]


def matrix_metrics(matrix: WinMatrix) -> dict[str, float]:
    """How much of a matrix of two candidates or more is known, and how far they differ, by name.

    - `invalid_pairs`: share of the pairs that were neither judged nor inferred, in [0, 1];
    - `inferred_pairs`: share of the pairs that were inferred, in [0, 1];
    - `win_rate_std`: standard deviation of the known win rates; left out if there are none;
    - `order_gap`: mean of the known order gaps; left out if there are none.
    """
    pairs = ~np.eye(matrix.size, dtype=bool)
    found = {
        "invalid_pairs": float(1 - matrix.known[pairs].mean()),
        "inferred_pairs": float(matrix.inferred[pairs].mean()),
    }
    if matrix.judged.any():
        found["win_rate_std"] = float(np.nanstd(matrix.win_rate(on_missing="drop").astype(np.float64)))
    gaps = matrix.order_gap[pairs & np.isfinite(matrix.order_gap)]
    if gaps.size:
        found["order_gap"] = float(gaps.mean(dtype=np.float64))
    return found
