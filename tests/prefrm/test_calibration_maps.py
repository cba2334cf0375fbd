"""Calibration maps by themselves, and a win matrix under one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError
from prefrm.winmatrix import CalibrationMap, PowerScaling, TemperatureScaling, WinMatrix, calibration_map

MAPS = [
    TemperatureScaling(temperature=0.4),
    PowerScaling(temperature=0.4, power=1.4),
    PowerScaling(temperature=2.0, power=0.6),
]
LOGITS = hnp.arrays(np.float64, st.integers(2, 7).map(lambda k: (k, k)), elements=st.floats(-40, 40))
each_map = pytest.mark.parametrize("calibration", MAPS, ids=CalibrationMap.describe)


def test_a_temperature_divides_and_a_power_comes_first() -> None:
    x = np.array([-4.0, -1.0, 0.0, 0.25, 4.0])
    assert TemperatureScaling(temperature=2.0).apply(x).tolist() == [-2.0, -0.5, 0.0, 0.125, 2.0]
    assert PowerScaling(temperature=2.0, power=0.5).apply(x).tolist() == [-1.0, -0.5, 0.0, 0.25, 1.0]


@each_map
@given(x=hnp.arrays(np.float64, 9, elements=st.floats(-1e6, 1e6)))
def test_a_map_is_odd_to_the_last_bit_and_increasing(calibration: CalibrationMap, x: np.ndarray) -> None:
    mapped = calibration.apply(x)
    assert np.array_equal(calibration.apply(-x), -mapped)
    assert (np.diff(mapped[np.argsort(x)]) >= 0).all()
    assert np.array_equal(mapped == 0, x == 0) or (np.abs(x[(mapped == 0) & (x != 0)]) < 1e-100).all()


@each_map
@given(logits=LOGITS)
def test_complements_are_exact_under_a_map(calibration: CalibrationMap, logits: np.ndarray) -> None:
    matrix = WinMatrix.from_order_logits(logits, calibration=calibration)
    assert np.array_equal(matrix.p + matrix.p.T, np.ones_like(matrix.p))
    assert (matrix.p.diagonal() == 0.5).all()


@each_map
@given(logits=LOGITS, data=st.data())
def test_a_permutation_permutes_a_calibrated_matrix(
    calibration: CalibrationMap, logits: np.ndarray, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(logits))))
    matrix = WinMatrix.from_order_logits(logits, calibration=calibration)
    permuted = WinMatrix.from_order_logits(logits[np.ix_(order, order)], calibration=calibration)
    assert permuted.equals(matrix.permuted(order))


def test_what_the_orders_share_and_what_tells_them_apart_are_calibrated() -> None:
    """Log-odds 5 and -1 of the two orders are 2 + 3 and 2 - 3; a square makes them 4 + 9 and 4 - 9."""
    square = PowerScaling(temperature=1.0, power=2.0)
    matrix = WinMatrix.from_order_logits(np.array([[0.0, 5.0], [1.0, 0.0]]), calibration=square)
    assert matrix.p[0, 1] == pytest.approx(sigmoid(4.0))
    assert matrix.order_gap[0, 1] == pytest.approx(sigmoid(13.0) - sigmoid(-5.0))


@each_map
def test_orders_that_cancel_out_keep_their_gap(calibration: CalibrationMap) -> None:
    matrix = WinMatrix.from_order_logits(np.array([[0.0, 1.5], [1.5, 0.0]]), calibration=calibration)
    d = float(calibration.apply(np.array(1.5)))
    assert matrix.p[0, 1] == 0.5
    assert matrix.order_gap[0, 1] == pytest.approx(sigmoid(d) - sigmoid(-d))


def test_ties_and_inferred_pairs_are_calibrated_too() -> None:
    z = np.array([[0.0, math.log(3), np.nan], [-math.log(3), 0.0, np.nan], [np.nan, np.nan, 0.0]])
    half = TemperatureScaling(temperature=0.5)
    matrix = WinMatrix.from_order_logits(z, tie=np.where(np.eye(3), 1.0, 0.25), calibration=half)
    assert matrix.tie[0, 1] == pytest.approx(0.1)
    assert matrix.tie[0, 0] == 1 and math.isnan(matrix.tie[0, 2])
    u = np.subtract.outer(np.arange(3.0), np.arange(3.0))
    assert matrix.with_inferred(u, calibration=half).p[2, 0] == pytest.approx(sigmoid(4.0))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@each_map
def test_a_map_is_its_name_and_its_parameters(calibration: CalibrationMap) -> None:
    assert calibration_map(calibration.name, calibration.parameters) == calibration


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("isotonic", {}, "calibration must be one of temperature, power; received 'isotonic'"),
        ("power", {"temperature": 1.0}, "'power' has other parameters"),
        ("temperature", {"temperature": 0.0}, "temperature must be positive and finite; received 0.0"),
        ("temperature", {"temperature": "1"}, "'temperature' has other parameters"),
        ("power", {"temperature": 1.0, "power": math.inf}, "power must be positive and finite"),
        ("power", {"temperature": 1.0, "power": math.nan}, "power must be positive and finite"),
    ],
)
def test_a_map_that_cannot_be_is_refused(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calibration_map(name, parameters)
