"""Score image files, and write a win matrix as JSON: what `prefrm score` does, as functions.

Reads files and asks a scorer; prints nothing.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefrm import media
from prefrm.errors import MediaError
from prefrm.rewards import ranking
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["matrix_to_json", "read_group", "score_files"]


def read_group(
    prompt: str,
    paths: Sequence[str | os.PathLike[str]],
    *,
    limits: media.ImageLimits = media.DEFAULT_LIMITS,
) -> Group:
    """The group of these image files, in order.

    Raises:
        MediaError: files cannot be read; every one of them is named, with its reason.
        RecordError: there are fewer than two.
    """
    images: list[bytes] = []
    problems: list[str] = []
    for path in paths:
        try:
            images.append(media.read(path, limits))
        except MediaError as error:
            problems.append(str(error))
    if problems:
        raise MediaError("; ".join(problems))
    return Group(prompt=prompt, images=tuple(images))


def score_files(scorer: Scorer, prompt: str, paths: Sequence[str | os.PathLike[str]]) -> WinMatrix:
    """The win matrix of image files as answers to `prompt`. Raises as `read_group` and `Scorer.score` do."""
    return scorer.score([read_group(prompt, paths)])[0]


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


def _nullable(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return [_nullable(entry) for entry in values]
    return float(values) if math.isfinite(values) else None
