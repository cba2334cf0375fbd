"""Several matrices of one group as one: identities of every rule, weights, steps, and criteria."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError
from prefrm.rewards import Combination, Combine, Criteria
from prefrm.winmatrix import FakeScorer, Group, WinMatrix

RULES = get_args(Combine)
logits = st.integers(2, 5).flatmap(
    lambda k: hnp.arrays(np.float64, (3, k, k), elements=st.floats(-9, 9) | st.just(np.nan))
)


def pair(z, **options):
    return WinMatrix.from_order_logits(np.array([[0.0, z], [-z, 0.0]]), **options)


def named(*zs):
    return {name: pair(z) for name, z in zip("abc", zs, strict=False)}


def log_odds(matrix):
    return float(np.log(matrix.p[0, 1] / matrix.p[1, 0]))


@pytest.mark.parametrize("rule", RULES)
@given(logits, st.randoms(use_true_random=False), st.floats(0, 0.9))
def test_every_rule_keeps_complements_permutations_and_what_is_not_known(rule, z, random, margin):
    matrices = {name: WinMatrix.from_order_logits(one) for name, one in zip("abc", z, strict=True)}
    rule = Combination(rule=rule, weights={"a": 2.0}, margin=margin)
    whole = rule.combined(matrices)
    known = np.all([matrix.known for matrix in matrices.values()], axis=0)
    assert np.array_equal(whole.known, known) and np.array_equal(whole.valid, known)
    assert np.array_equal((whole.p == 1 - whole.p.T), known)
    order = random.sample(range(whole.size), whole.size)
    turned = rule.combined({name: matrix.permuted(order) for name, matrix in matrices.items()})
    assert turned.equals(whole.permuted(order))


@pytest.mark.parametrize("rule", RULES)
def test_one_matrix_stays_as_it_is_and_so_does_one_beside_those_of_no_weight(rule):
    only = pair(0.3, tie=np.full((2, 2), 0.1))
    assert Combination(rule=rule).combined({"a": only}) is only
    weights = {"b": 0.0}
    assert Combination(rule=rule, weights=weights).combined({"b": pair(9.0), "a": only}) is only


@pytest.mark.parametrize(
    ("zs", "margin", "expected"),
    [
        ([0.5, -3.0], 0.0, 0.5),
        # |2 p - 1| of log-odds 0.5 is 0.245.
        ([0.5, -3.0], 0.24, 0.5),
        ([0.5, -3.0], 0.25, -3.0),
        ([0.0, 0.1, -0.2], 0.3, -0.2),
        ([0.0, 0.1, -0.2], 0.0, 0.1),
    ],
)
def test_the_first_criterion_beyond_the_margin_decides_or_else_the_last(zs, margin, expected):
    whole = Combination(rule="lexicographic", margin=margin).combined(named(*zs))
    assert log_odds(whole) == pytest.approx(expected, abs=1e-5)


def test_weights_by_step_are_those_of_equal_parts_of_the_rollout():
    rule = Combination(weights={"a": 7.0})
    steps = rule.by_step(named(1.0, -3.0), {"a": (1.0, 1.0), "b": (0.0, 1.0)}, 5)
    assert [round(log_odds(step), 4) for step in steps] == [1.0, 1.0, 1.0, -1.0, -1.0]
    with pytest.raises(ConfigError, match=r"weights by step are of \['a'\]"):
        rule.by_step(named(1.0, -3.0), {"a": (1.0,)}, 5)


def test_a_reason_names_its_criterion():
    bad = WinMatrix.from_order_logits(
        np.array([[0.0, np.nan], [np.nan, 0.0]]), pair_errors={(0, 1): "too long"}
    )
    whole = Combination().combined({"": pair(1.0), "alignment": bad})
    assert whole.reason(0, 1) == "alignment: too long"
    missing = WinMatrix.missing(["unreadable", ""])
    assert Combination(rule="vote").combined({"": missing, "b": pair(0.0)}).errors[0] == "overall: unreadable"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Combination(rule="median"), "combine must be one of"),
        (lambda: Combination(margin=1.0), "margin"),
        (lambda: Combination(penalty=-1.0), "penalty"),
        (lambda: Combination(weights={"a": -1.0}), "weight of 'a'"),
        (lambda: Combination(weights={"x": 1.0}).combined(named(1.0)), r"weights name \['x'\]"),
        (lambda: Combination(weights={"a": 0.0}).combined(named(1.0)), "positive weight"),
        (
            lambda: Combination().combined({"a": pair(1.0), "b": WinMatrix.missing(["", "", ""])}),
            "one size",
        ),
        (lambda: Criteria(names=()), "name at least one"),
        (lambda: Criteria(names=("a", "a")), "'a' twice"),
        (lambda: Criteria(names=("", "overall")), "'overall' twice"),
        (lambda: Criteria(names=("a",), combination=Combination(weights={"b": 1.0})), "criteria are"),
        (lambda: Criteria(names=("a",), combination=Combination(weights={"a": 0.0})), "weight 0, of"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


class ByCriterion:
    """Prefers the larger candidate by "size" and the smaller one by anything else."""

    def score(self, groups):
        signs = [1 if group.criterion == "size" else -1 for group in groups]
        return [
            FakeScorer(lambda prompt, x, s=sign: s * float(x)).score([group])[0]
            for group, sign in zip(groups, signs, strict=True)
        ]


def test_a_group_is_asked_once_for_each_criterion():
    criteria = Criteria(names=("size", "age"), combination=Combination(weights={"size": 3.0}))
    groups = [Group(prompt=p, candidates=("2", "1")) for p in "pq"]
    asked = criteria.groups(groups)
    assert [(group.prompt, group.criterion) for group in asked] == [
        ("p", "size"), ("p", "age"), ("q", "size"), ("q", "age"),
    ]  # fmt: skip
    matrices = ByCriterion().score(asked)
    assert [log_odds(answer["age"]) for answer in criteria.answers(matrices)] == pytest.approx([-1, -1])
    assert [log_odds(whole) for whole in criteria.combined(matrices)] == pytest.approx([0.5, 0.5], abs=1e-6)
