"""Why a win matrix has gaps, as a few lines for people."""

from collections.abc import Sequence

import numpy as np

from prefrm.winmatrix.matrix import WinMatrix

__all__ = ["unjudged_reasons"]

SHOWN = 3  # candidates with the same reason that a line names; the rest are counted


def unjudged_reasons(matrix: WinMatrix, names: Sequence[str]) -> list[str]:
    """One line for each reason why candidates could not be judged, and one for each reason of other pairs.

    Args:
        matrix: of K candidates.
        names: K names of the candidates.
    """
    by_error: dict[str, list[str]] = {}
    for name, error in zip(names, matrix.errors, strict=True):
        if error:
            by_error.setdefault(error, []).append(name)
    lines = [f"{', '.join(alike[:SHOWN])}{_more(alike, SHOWN)}: {error}" for error, alike in by_error.items()]
    readable = np.array([not error for error in matrix.errors])
    by_reason: dict[str, list[tuple[int, int]]] = {}
    for i, j in np.argwhere(np.triu(~matrix.known & readable[:, None] & readable[None, :])):
        by_reason.setdefault(matrix.reason(int(i), int(j)), []).append((int(i), int(j)))
    for reason, pairs in by_reason.items():
        i, j = pairs[0]
        lines.append(f"{names[i]} against {names[j]}{_more(pairs, 1)}: {reason}")
    return lines


def _more(alike: Sequence[object], shown: int) -> str:
    return f" and {len(alike) - shown} more" if len(alike) > shown else ""
