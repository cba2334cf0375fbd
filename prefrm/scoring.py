"""A win matrix as JSON."""

from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.rewards import ranking
from prefrm.winmatrix import WinMatrix

__all__ = ["matrix_fields", "matrix_to_json", "nullable", "pair_errors"]


def matrix_to_json(matrix: WinMatrix) -> dict[str, Any]:
    """A win matrix as plain lists for JSON, null where a value is NaN.

    Keys: `win_matrix`, `order_gap`, `tie` and `valid` (K lists of K), `win_rate` and `errors` (K), and
    `ranking`: the indices of the candidates that have a win rate, highest first. A number in `win_matrix`
    where `valid` is false was inferred from judged pairs. `pair_errors` has the `pair` [i, j] and the
    `reason` of each that the judge refused by itself. Of an ensemble also `spread`, and of a judge that reads
    it `label_mass` (K lists of K).
    """
    return {
        name: nullable(value) if isinstance(value, np.ndarray) else value
        for name, value in matrix_fields(matrix).items()
    }


def matrix_fields(matrix: WinMatrix) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """The fields of `matrix_to_json`, with arrays for lists that may hold null: NaN there."""
    reported = {"spread": matrix.spread, "label_mass": matrix.label_mass}
    return {
        "win_matrix": matrix.p,
        "win_rate": matrix.win_rate(on_missing="drop"),
        "ranking": ranking(matrix),
        "order_gap": matrix.order_gap,
        "tie": matrix.tie,
        "valid": matrix.valid,
        **{name: values for name, values in reported.items() if values is not None},
        "errors": list(matrix.errors),
        "pair_errors": pair_errors(matrix),
    }


def pair_errors(matrix: WinMatrix) -> list[dict[str, Any]]:
    """Why pairs were not judged, in their order: each with its `pair` [i, j], i < j, and `reason`."""
    return [{"pair": list(pair), "reason": reason} for pair, reason in sorted(matrix.pair_errors.items())]


def nullable(values: npt.NDArray[Any]) -> Any:
    """The lists of an array of numbers or truth values, None where it is not finite."""
    found = values.astype(object)
    found[~np.isfinite(values)] = None
    return found.tolist()
