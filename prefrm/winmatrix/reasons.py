"""Why a win matrix has gaps, as a few lines for people."""

from collections.abc import Sequence

import numpy as np

from prefrm.winmatrix.matrix import WinMatrix

__all__ = ["unjudged_reasons"]


def unjudged_reasons(matrix: WinMatrix, names: Sequence[str]) -> list[str]:
    """One line for each candidate that could not be judged, and one for each reason of other pairs.

    Args:
        matrix: of K candidates.
        names: K names of the candidates.
    """
    lines = [f"{name}: {error}" for name, error in zip(names, matrix.errors, strict=True) if error]
    readable = np.array([not error for error in matrix.errors])
    by_reason: dict[str, list[tuple[int, int]]] = {}
    for i, j in np.argwhere(np.triu(~matrix.known & readable[:, None] & readable[None, :])):
        by_reason.setdefault(matrix.reason(int(i), int(j)), []).append((int(i), int(j)))
    for reason, pairs in by_reason.items():
        i, j = pairs[0]
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        lines.append(f"{names[i]} against {names[j]}{more}: {reason}")
    return lines
