"""Ensembles: what each rule makes of the members' matrices, the spread, and what is never made up."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError, ScoringError
from prefrm.scorers import Ensemble, Member
from prefrm.winmatrix import Group, IdentifiedScorer, TemperatureScaling, WinMatrix


class Fixed:
    """A scorer that gives one matrix to every group."""

    def __init__(self, matrix, name="fixed"):
        self.matrix, self.name = matrix, name

    def score(self, groups):
        return [self.matrix for _ in groups]

    def identity(self):
        return self.name


def of(*matrices, weights=None, **options):
    weights = weights or [1.0] * len(matrices)
    members = [
        Member(name=f"m{n}", scorer=Fixed(matrix, f"digest {n}"), weight=weight)
        for n, (matrix, weight) in enumerate(zip(matrices, weights, strict=True))
    ]
    return Ensemble(members, **options)


def scored(*matrices, **options):
    group = Group(prompt="p", candidates=(b"x",) * matrices[0].size)
    return of(*matrices, **options).score([group])[0]


def pair(z, **options):
    return WinMatrix.from_order_logits(np.array([[0.0, z], [-z, 0.0]]), **options)


def log_odds(matrix):
    p = float(matrix.p[0, 1])
    return np.log(p / (1 - p))


@pytest.mark.parametrize(
    ("combine", "options", "zs", "weights", "expected"),
    [
        ("mean", {}, [2.0, -1.0, 0.5], [1, 1, 2], 0.5),
        ("worst", {}, [2.0, 1.0, 0.5], None, 0.5),
        ("worst", {}, [-2.0, -1.0, -0.5], None, -0.5),
        ("worst", {}, [2.0, 1.0, -0.1], None, 0.0),
        # Mean 2, standard deviation 1.
        ("uncertainty", {}, [1.0, 3.0], None, 1.0),
        # Mean 4, variance 3.
        ("uncertainty", {}, [1.0, 5.0], [1, 3], 4 - np.sqrt(3)),
        ("uncertainty", {"penalty": 0.5}, [-1.0, -3.0], None, -1.5),
        ("uncertainty", {"penalty": 3.0}, [1.0, 3.0], None, 0.0),
    ],
)
def test_log_odds_are_combined_by_the_rule(combine, options, zs, weights, expected):
    matrix = scored(*map(pair, zs), weights=weights, combine=combine, **options)
    assert log_odds(matrix) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("zs", "weights", "expected"),
    [
        ([5.0, 0.1, -9.0], None, 2 / 3),
        ([5.0, 0.1, 9.0], None, 1.0),
        ([5.0, -0.1, -9.0], [2, 1, 1], 0.5),
        ([1.0, 0.0], None, 0.75),
    ],
)
def test_a_vote_counts_verdicts_and_not_their_sizes(zs, weights, expected):
    matrix = scored(*map(pair, zs), weights=weights, combine="vote")
    assert matrix.p[0, 1] == pytest.approx(expected, abs=1e-7)


def test_the_spread_is_the_standard_deviation_of_the_members_probabilities():
    even = pair(0.0)
    sure = pair(100.0)
    matrix = scored(even, sure, weights=[3, 1])
    # 0.5 with weight 3/4 and 1 with 1/4: the mean is 0.625.
    assert matrix.spread[0, 1] == pytest.approx(np.sqrt(0.75 * 0.125**2 + 0.25 * 0.375**2), abs=1e-6)
    assert matrix.spread[0, 0] == 0
    assert scored(sure, sure).spread[0, 1] == 0
    assert scored(sure).spread is None


def test_order_gaps_and_ties_are_means_of_those_that_there_are():
    gap = WinMatrix.from_order_logits(np.array([[0.0, 1.0], [1.0, 0.0]]), tie=np.full((2, 2), 0.4))
    free = pair(1.0, order_free=True)
    matrix = scored(gap, free)
    assert matrix.order_gap[0, 1] == gap.order_gap[0, 1]
    assert np.isnan(matrix.tie[0, 1])
    assert scored(gap, gap).tie[0, 1] == pytest.approx(0.4)
    # A tie counts half to each: P(tie) is at most twice the smaller p.
    sure = pair(5.0, tie=np.full((2, 2), 0.01))
    assert scored(gap, sure).tie[0, 1] <= 2 * scored(gap, sure).p[1, 0] + 1e-7
    assert np.isnan(scored(gap, gap, combine="vote").tie).all()


def test_means_of_order_gaps_and_ties_are_weighted():
    gap = WinMatrix.from_order_logits(np.array([[0.0, 1.0], [1.0, 0.0]]), tie=np.full((2, 2), 0.4))
    matrix = scored(gap, pair(0.0, tie=np.full((2, 2), 0.2)), weights=[3, 1])
    assert matrix.order_gap[0, 1] == pytest.approx(0.75 * gap.order_gap[0, 1])
    assert matrix.tie[0, 1] == pytest.approx(0.35)


def test_the_label_mass_is_the_least_that_a_member_read():
    nothing = pair(1.0)
    none, some, less = (pair(1.0, label_mass=np.full((2, 2), mass)) for mass in (np.nan, 0.75, 0.5))
    assert scored(nothing, nothing).label_mass is None
    assert scored(nothing, some).label_mass[0, 1] == 0.75
    assert scored(some, none, less).label_mass[0, 1] == 0.5
    assert np.isnan(scored(nothing, none).label_mass[0, 1])


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_a_weight_is_positive_and_finite(weight):
    with pytest.raises(ConfigError, match="weight of m0 must be positive and finite"):
        of(pair(1.0), weights=[weight])


def test_a_pair_that_one_member_did_not_judge_is_not_judged():
    holes = WinMatrix.from_order_logits(np.array([[0, 1, np.nan], [0, 0, 2], [np.nan, 0, 0.0]]))
    whole = WinMatrix.from_order_logits(np.ones((3, 3)))
    gone = WinMatrix.from_order_logits(np.ones((3, 3)), errors=["", "", "it is broken"])
    for combine in ("mean", "vote", "worst", "uncertainty"):
        matrix = scored(whole, holes, combine=combine)
        assert not matrix.valid[0, 2] and np.isnan(matrix.p[0, 2]) and np.isnan(matrix.spread[0, 2])
        assert matrix.valid[0, 1]
        matrix = scored(whole, gone, combine=combine)
        assert matrix.errors == ("", "", "m1: it is broken")
        assert matrix.judged.tolist() == [True, True, False]


def test_the_reason_of_a_pair_names_the_member():
    z = np.array([[0.0, np.nan], [1.0, 0.0]])
    silent = WinMatrix.from_order_logits(z, pair_errors={(0, 1): "it said: perhaps"})
    assert scored(pair(1.0), silent).reason(1, 0) == "m1: it said: perhaps"
    assert scored(pair(1.0), silent, silent).pair_errors == {
        (0, 1): "m1: it said: perhaps; m2: it said: perhaps"
    }


def test_what_a_member_inferred_is_inferred():
    z = np.array([[0, 1, np.nan], [-1, 0, 2], [np.nan, -2, 0.0]])
    part = WinMatrix.from_order_logits(z).with_inferred(np.subtract.outer([3.0, 2, 0], [3.0, 2, 0]))
    whole = WinMatrix.from_order_logits(np.subtract.outer([1.0, 1, 0], [1.0, 1, 0]))
    matrix = scored(part, whole)
    assert matrix.inferred[0, 2] and matrix.p[0, 2] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-6)
    assert np.isnan(matrix.spread[0, 2])


@given(
    st.integers(2, 5).flatmap(
        lambda k: st.lists(
            hnp.arrays(np.float64, (k, k), elements=st.floats(-30, 30)), min_size=2, max_size=4
        )
    ),
    st.sampled_from(["mean", "vote", "worst", "uncertainty"]),
    st.data(),
)
def test_complements_are_exact_and_a_permutation_permutes_the_matrix(logits, combine, data):
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(logits), max_size=len(logits)))
    order = data.draw(st.permutations(range(len(logits[0]))))
    matrices = [WinMatrix.from_order_logits(z) for z in logits]
    # The constructor checks that p + p.T is exactly 1 and that the others are symmetric.
    matrix = scored(*matrices, weights=weights, combine=combine)
    permuted = scored(*(one.permuted(order) for one in matrices), weights=weights, combine=combine)
    assert permuted.equals(matrix.permuted(order))


def test_the_calibration_comes_after_the_rule():
    half = TemperatureScaling(temperature=2.0)
    matrix = scored(pair(1.0), pair(3.0), calibration=half)
    assert log_odds(matrix) == pytest.approx(1.0, abs=1e-5)
    assert matrix.spread is not None
    assert log_odds(scored(pair(3.0), calibration=half)) == pytest.approx(1.5, abs=1e-5)
    assert scored(pair(3.0)).equals(pair(3.0))


def test_an_identity_names_members_rule_and_calibration():
    z = pair(1.0)
    assert of(z).identity() == "digest 0 x 1"
    known = {
        of(z, z).identity(),
        of(z, z, weights=[1, 2]).identity(),
        of(z, z, combine="worst").identity(),
        of(z, z, combine="uncertainty").identity(),
        of(z, z, combine="uncertainty", penalty=2.0).identity(),
        of(z, z, calibration=TemperatureScaling(temperature=2.0)).identity(),
    }
    assert len(known) == 6
    assert isinstance(of(z), IdentifiedScorer)


class Remote(Fixed):
    """A remote scorer, which waits until another one works."""

    concurrency = 3

    def __init__(self, matrix, barrier):
        super().__init__(matrix)
        self.barrier = barrier

    def score(self, groups):
        self.barrier.wait(timeout=5)
        return super().score(groups)


def test_remote_members_work_at_the_same_time():
    barrier = threading.Barrier(2)
    members = [Member(name=name, scorer=Remote(pair(1.0), barrier)) for name in ("a", "b")]
    ensemble = Ensemble(members)
    assert ensemble.concurrency == 3
    (matrix,) = ensemble.score([Group(prompt="p", candidates=(b"x", b"y"))])
    assert log_odds(matrix) == pytest.approx(1.0, abs=1e-5)


def test_a_member_that_fails_fails_the_ensemble():
    class Broken(Fixed):
        def score(self, groups):
            raise ScoringError("the server failed")

    members = [Member(name="a", scorer=Fixed(pair(1.0))), Member(name="b", scorer=Broken(None))]
    with pytest.raises(ScoringError, match="the server failed"):
        Ensemble(members).score([Group(prompt="p", candidates=(b"x", b"y"))])
    with pytest.raises(ConfigError, match="at least one member"):
        Ensemble([])


class ByCriterion:
    """Log-odds by the criterion of each group; remembers its calls."""

    def __init__(self, by):
        self.by, self.calls = by, []

    def identity(self):
        return "digest"

    def score(self, groups):
        self.calls.append([group.criterion for group in groups])
        return [pair(self.by[group.criterion]) for group in groups]


def test_a_scorer_that_is_there_by_several_criteria_is_called_once():
    judge = ByCriterion({"alignment": 2.0, "aesthetics": -1.0, "": 0.5})
    members = [Member(name=name, scorer=judge, criterion=name) for name in ("alignment", "aesthetics")] + [
        Member(name="own", scorer=judge)
    ]
    ensemble = Ensemble(members, combine="lexicographic")
    groups = [Group(prompt=p, candidates=("x", "y")) for p in "pq"]
    assert [log_odds(matrix) for matrix in ensemble.score(groups)] == pytest.approx([2.0, 2.0], abs=1e-5)
    assert judge.calls == [["alignment", "aesthetics", ""] * 2]
    assert "digest by 'alignment' x 1" in ensemble.identity()
    assert log_odds(Ensemble(members).score(groups[:1])[0]) == pytest.approx(0.5, abs=1e-5)
    own, refused = ensemble.score([groups[0], replace(groups[0], criterion="alignment")])
    assert own.valid.all() and not refused.valid.any()
    assert "the group has a criterion, which this judge does not read" in refused.errors[0]
