import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from prefrm.rewards import ranking
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import FakeScorer, Group, WinMatrix


@pytest.fixture
def files(tmp_path):
    paths = []
    for n, side in enumerate((4, 9, 6)):
        paths.append(tmp_path / f"image_{n}.png")
        Image.new("RGB", (side, side)).save(paths[-1])
    return paths


def width(prompt, image):
    return float(image[19])  # the last byte of the width in a PNG header


def test_files_are_scored_in_the_order_in_which_they_are_named(files):
    (matrix,) = FakeScorer(width).score([Group.of("the widest", files)])
    assert ranking(matrix) == [1, 2, 0]


def test_json_tells_what_was_inferred_by_valid():
    z = np.array([[0, 1.0, np.nan], [-1.0, 0, 1.0], [np.nan, -1.0, 0]])
    matrix = WinMatrix.from_order_logits(z).with_inferred(np.subtract.outer([2.0, 1.0, 0.0], [2.0, 1.0, 0.0]))
    value = json.loads(json.dumps(matrix_to_json(matrix), allow_nan=False))
    assert value["win_matrix"][0][2] == pytest.approx(1 / (1 + np.exp(-2)))
    assert (value["valid"][0][2], value["order_gap"][0][2]) == (False, None)
    assert value["ranking"] == [0, 1, 2]


def test_json_has_what_else_a_scorer_reports():
    z, mass = np.zeros((2, 2)), np.array([[np.nan, 0.75], [0.75, np.nan]])
    value = matrix_to_json(WinMatrix.from_order_logits(z, label_mass=mass))
    assert value["label_mass"] == [[None, 0.75], [0.75, None]] and "spread" not in value


def test_json_has_the_reason_of_a_pair():
    matrix = WinMatrix.from_order_logits(np.full((2, 2), np.nan), pair_errors={(0, 1): "it said: perhaps"})
    assert matrix_to_json(matrix)["pair_errors"] == [{"pair": [0, 1], "reason": "it said: perhaps"}]


def test_json_has_null_where_there_is_no_value():
    z = np.array([[0, 1.0, 2.0], [-1.0, 0, 0], [-2.0, 0, 0]])
    matrix = WinMatrix.from_order_logits(z, errors=("", "", "unreadable"), order_free=True)
    value = json.loads(json.dumps(matrix_to_json(matrix), allow_nan=False))
    spread = np.where(matrix.valid, 0, np.nan)
    of_ensemble = json.loads(json.dumps(matrix_to_json(replace(matrix, spread=spread)), allow_nan=False))
    assert of_ensemble == value | {"spread": [[0, 0, None], [0, 0, None], [None, None, None]]}
    p = float(matrix.p[0, 1])
    assert value == {
        "win_matrix": [[0.5, p, None], [1 - p, 0.5, None], [None, None, None]],
        "win_rate": [p, 1 - p, None],
        "ranking": [0, 1],
        "order_gap": [[0, None, None], [None, 0, None], [None, None, None]],
        "tie": [[None] * 3] * 3,
        "valid": [[True, True, False], [True, True, False], [False, False, False]],
        "errors": ["", "", "unreadable"],
        "pair_errors": [],
    }
