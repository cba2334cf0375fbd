"""A budget of pairs in the engine: what is judged is what it would be anyway, and the rest is inferred."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.winmatrix import Group, PowerScaling

PROMPT = "two dogs and a red kite"
CALIBRATION = PowerScaling(temperature=0.5, power=1.4)


@pytest.fixture(params=["late", "joint"])
def judge(tiny_checkpoint, request) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), attention=request.param), "cpu")


@pytest.fixture
def make_group(png) -> Callable[..., Group]:
    return lambda *seeds: Group(prompt=PROMPT, candidates=tuple(png(seed) for seed in seeds))


def pairs_of(matrix: np.ndarray) -> int:
    return int(np.triu(matrix, 1).sum())


def test_judged_pairs_are_those_of_the_whole_matrix(judge: Judge, make_group):
    group = make_group(*range(8))
    whole = Engine(judge, calibration=CALIBRATION).score([group])[0]
    some = Engine(judge, calibration=CALIBRATION, pairs=12).score([group])[0]
    assert pairs_of(some.valid) == 12 and pairs_of(some.inferred) == 28 - 12
    np.testing.assert_allclose(some.p[some.valid], whole.p[some.valid], atol=1e-5)
    np.testing.assert_allclose(some.order_gap[some.valid], whole.order_gap[some.valid], atol=1e-5)
    assert np.isnan(some.order_gap[some.inferred]).all()
    assert np.isfinite(some.win_rate()).all()


def test_inferred_pairs_are_calibrated_after_they_were_inferred(judge: Judge, make_group):
    """Which pairs are judged, and what they imply of the others, depends on no calibration."""
    group = make_group(*range(6))
    plain, scored = (Engine(judge, pairs=7, calibration=c).score([group])[0] for c in (None, CALIBRATION))
    assert np.array_equal(plain.valid, scored.valid) and pairs_of(scored.inferred) == 8
    np.testing.assert_allclose(scored.p, plain.calibrated(CALIBRATION).p, atol=1e-6)


def test_a_budget_for_all_pairs_leaves_nothing_to_infer(judge: Judge, make_group):
    group = make_group(0, 1, 2, 3)
    whole, paid = (Engine(judge, pairs=pairs).score([group])[0] for pairs in ("all", 6))
    assert paid.equals(whole)


@pytest.mark.parametrize("share", [False, True])
def test_neither_order_nor_company_changes_a_bit(judge: Judge, make_group, share: bool):
    engine, group = Engine(judge, pairs=7, share=share), make_group(0, 1, 2, 3, 4, 5)
    order = [4, 2, 0, 5, 1, 3]
    matrix, _, permuted = engine.score([group, make_group(1, 7), group.permuted(order)])
    assert engine.score([group])[0].equals(matrix)
    assert permuted.equals(matrix.permuted(order))
    assert pairs_of(matrix.inferred) == 8


def test_unreadable_and_duplicate_candidates(judge: Judge, make_group):
    good = make_group(0, 1, 2, 3, 4)
    group = Group(prompt=PROMPT, candidates=(*good.candidates, b"no image", good.candidates[0]))
    matrix = Engine(judge, pairs=5).score([group])[0]
    assert matrix.errors[5] and np.isnan(matrix.p[5]).all()
    assert matrix.p[0, 6] == 0.5
    keep = [0, 1, 2, 3, 4, 6]
    assert np.isfinite(matrix.p[np.ix_(keep, keep)]).all()


def test_heads_that_look_at_one_image_judge_all_pairs(tiny_checkpoint, make_group):
    scalar = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), head="scalar"), "cpu")
    matrix = Engine(scalar, pairs=3).score([make_group(0, 1, 2, 3)])[0]
    assert matrix.valid.all()


def test_a_budget_that_is_too_small_to_connect_a_group_is_exceeded(judge: Judge, make_group):
    """One large group must not fail the call that it came in."""
    small, large = Engine(judge, pairs=2).score([make_group(5, 6), make_group(0, 1, 2, 3)])
    assert small.valid.all()
    assert pairs_of(large.valid) == 3 and pairs_of(large.inferred) == 3


def test_a_budget_for_all_pairs_of_copies_is_no_budget(judge: Judge, make_group):
    group = make_group(0, 1, 0)
    assert Engine(judge, pairs=3).score([group])[0].equals(Engine(judge).score([group])[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, "pairs must be at least 1; received 0"),
        ({"pairs": "some"}, "pairs must be at least 1; received 'some'"),
        ({"pairs": None}, "received None"),
        ({"pairs": 2.5}, "received 2.5"),
        ({"pairs": True}, "received True"),
        ({"tokens": 1.5}, "tokens must be at least 1; received 1.5"),
        ({"patches": 0}, "patches must be at least 1; received 0"),
    ],
)
def test_what_is_no_number_is_refused(judge: Judge, settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Engine(judge, **settings)
