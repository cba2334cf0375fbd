"""A win matrix as JSON, and as a row of an Arrow table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.rewards import ranking
from prefrm.winmatrix import WinMatrix

__all__ = [
    "matrix_fields",
    "matrix_of_row",
    "matrix_row",
    "matrix_to_json",
    "matrix_types",
    "nullable",
    "pair_errors",
]

OPTIONAL = ("spread", "label_mass")
"""Fields that are there for some scorers alone."""


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
    reported = {name: getattr(matrix, name) for name in OPTIONAL}
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


def matrix_row(matrix: WinMatrix) -> dict[str, Any]:
    """The fields of `matrix_to_json` as plain lists, NaN where there is no value, and null for what a scorer
    does not report.
    """
    fields = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in matrix_fields(matrix).items()
    }
    return dict.fromkeys(OPTIONAL) | fields


def matrix_types(pa: Any) -> list[tuple[str, Any]]:
    """Names and Arrow types of the fields of `matrix_row`; `pa` is pyarrow."""
    floats, square = pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32()))
    return [
        ("win_matrix", square),
        ("valid", pa.list_(pa.list_(pa.bool_()))),
        ("order_gap", square),
        ("tie", square),
        *((name, square) for name in OPTIONAL),
        ("win_rate", floats),
        ("ranking", pa.list_(pa.int32())),
        ("errors", pa.list_(pa.string())),
        ("pair_errors", pa.list_(pa.struct([("pair", pa.list_(pa.int32())), ("reason", pa.string())]))),
    ]


def matrix_of_row(row: Mapping[str, Any]) -> WinMatrix:
    """The matrix of `matrix_row`. Raises `RecordError` if there is none like that."""
    reported: dict[str, Any] = {
        name: np.array(row[name], np.float32) for name in OPTIONAL if row[name] is not None
    }
    return WinMatrix(
        p=np.array(row["win_matrix"], np.float32),
        valid=np.array(row["valid"], np.bool_),
        tie=np.array(row["tie"], np.float32),
        order_gap=np.array(row["order_gap"], np.float32),
        **reported,
        errors=tuple(row["errors"]),
        pair_errors={tuple(entry["pair"]): entry["reason"] for entry in row["pair_errors"]},
    )


def pair_errors(matrix: WinMatrix) -> list[dict[str, Any]]:
    """Why pairs were not judged, in their order: each with its `pair` [i, j], i < j, and `reason`."""
    return [{"pair": list(pair), "reason": reason} for pair, reason in sorted(matrix.pair_errors.items())]


def nullable(values: npt.NDArray[Any]) -> Any:
    """The lists of an array of numbers or truth values, None where it is not finite."""
    found = values.astype(object)
    found[~np.isfinite(values)] = None
    return found.tolist()
