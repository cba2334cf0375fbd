import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from prefrm.eval import JudgedGroup, Pairs, Thresholds, kendall_tau, measure, pair_accuracy, pairs_of
from prefrm.records import Comparison, comparisons_from_scores
from prefrm.winmatrix import WinMatrix


def judged(logits, comparisons, *, id="a", prompt=None, quality=None, tags=None, order_free=False):
    matrix = WinMatrix.from_order_logits(np.array(logits, float), order_free=order_free)
    return JudgedGroup(
        id=id,
        prompt=prompt or id,
        comparisons=tuple(comparisons),
        quality=quality,
        tags=tags or {},
        matrix=matrix,
    )


def utilities(*u):
    return np.subtract.outer(u, u)


def pair_columns(p, target, *, weight=None, prompt=None):
    n = len(p)
    return Pairs(
        p=np.array(p, float),
        order_gap=np.zeros(n),
        tie=np.full(n, np.nan),
        target=np.array(target, float),
        weight=np.ones(n) if weight is None else np.array(weight, float),
        prompt=np.arange(n) if prompt is None else np.array(prompt),
        lower_first=np.ones(n, bool),
    )


def test_accuracy_counts_strict_pairs_and_a_judge_that_says_half_is_wrong():
    result = pair_accuracy(pair_columns([0.9, 0.2, 0.5, 0.5, 0.9], [1, 1, 1, 0, 0.5]))
    # Right, wrong, undecided twice; the fifth is a tie in the data and no strict pair.
    assert result.value == 1 / 4
    assert result.pairs == 4


def test_unjudged_pairs_are_neither_right_nor_wrong():
    result = pair_accuracy(pair_columns([0.9, np.nan, 0.1], [1, 1, 1]))
    assert (result.value, result.pairs, result.unjudged) == (0.5, 2, 1)


def test_an_inferred_p_is_no_answer_of_the_judge():
    group = judged([[0, 1, np.nan], [-1, 0, 1], [np.nan, -1, 0]], comparisons_from_scores([2, 1, 0]))
    pairs = pairs_of([replace(group, matrix=group.matrix.with_inferred(utilities(2.0, 1.0, 0.0)))])
    assert np.isnan(pairs.p).sum() == 1
    assert len(pairs.judged) == 2


def test_accuracy_is_weighted():
    assert pair_accuracy(pair_columns([0.9, 0.1], [1, 1], weight=[3, 1])).value == 0.75


def test_accuracy_of_nothing_is_nan():
    result = pair_accuracy(pair_columns([0.9], [0.5]))
    assert math.isnan(result.value) and math.isnan(result.low) and result.pairs == 0


def test_soft_targets_count_as_the_side_they_lean_to():
    assert pair_accuracy(pair_columns([0.6, 0.6], [0.7, 0.3])).value == 0.5


def test_a_judge_that_always_says_the_first_scores_the_share_of_labels_that_do():
    """The trap of a dataset whose first candidate is nearly always the best."""
    groups = [
        judged([[0, 2.0], [-2.0, 0]], [Comparison.preferred(int(n == 9), int(n != 9))], id=str(n))
        for n in range(10)
    ]
    metrics = measure(groups)
    assert metrics.accuracy.value == 0.9
    assert metrics.lower_index_accuracy == 0.9


def test_by_tag():
    strict = [Comparison.preferred(0, 1)]
    metrics = measure(
        [
            judged([[0, 1.0], [-1.0, 0]], strict, id="a", tags={"skill": "counting"}),
            judged([[0, -1.0], [1.0, 0]], strict, id="b", tags={"skill": "counting"}),
            judged([[0, 1.0], [-1.0, 0]], strict, id="c", tags={"skill": "position"}),
        ]
    )
    assert {value: (entry.value, entry.pairs) for value, entry in metrics.by_tag["skill"].items()} == {
        "counting": (0.5, 2),
        "position": (1.0, 1),
    }


def test_log_loss_by_hand():
    # sigmoid(log 3) = 3/4 for a preferred pair, and for a tie: -(log 3/4 + log 1/4) / 2.
    group = judged(
        [[0, math.log(3)], [-math.log(3), 0]], [Comparison.preferred(0, 1), Comparison.tie(0, 1)], id="a"
    )
    strict, tie = -math.log(3 / 4), -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert measure([group]).log_loss == pytest.approx((strict + tie) / 2, rel=1e-6)


def test_a_certain_mistake_costs_a_finite_log_loss():
    group = judged([[0, 1000.0], [-1000.0, 0]], [Comparison.preferred(1, 0)])
    assert group.matrix.p[0, 1] == 1
    assert measure([group]).log_loss == pytest.approx(24 * math.log(2), rel=1e-6)


def test_order_gap_and_swap_consistency_by_hand():
    # 0 against 1: log-odds 2 and, the other way round, still -(-1) = 1: one verdict, gap s(2) - s(1).
    # 0 against 2: 3 and -1: the verdict depends on the order, gap s(3) - s(-1).
    s = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    logits = [[0, 2.0, 3.0], [-1.0, 0, 0], [1.0, 0, 0]]
    metrics = measure([judged(logits, [Comparison.preferred(0, 1), Comparison.preferred(0, 2)])])
    gaps = [s(2) - s(1), s(3) - s(-1)]
    assert metrics.mean_order_gap == pytest.approx(sum(gaps) / 2, rel=1e-6)
    assert metrics.max_order_gap == pytest.approx(gaps[1], rel=1e-6)
    assert metrics.swap_consistency == 0.5


def test_the_label_mass_is_that_of_all_pairs_in_which_it_was_read():
    pairs = [Comparison.preferred(0, 1)]
    group = judged([[0, 1.0, 1.0], [-1.0, 0, 1.0], [-1.0, -1.0, 0]], pairs)
    mass = np.array([[np.nan, 0.9, 0.3], [0.9, np.nan, np.nan], [0.3, np.nan, np.nan]])
    read = replace(group, matrix=replace(group.matrix, label_mass=mass))
    assert measure([read, group]).mean_label_mass == pytest.approx(0.6)
    assert math.isnan(measure([group]).mean_label_mass)


def test_every_mean_over_comparisons_counts_by_weight():
    """A weight of 3 is three comparisons of weight 1, whatever is measured."""
    logits = [[0, 2.0, 3.0], [-1.0, 0, 0.5], [1.0, 0, 0]]
    pairs = (Comparison.preferred(0, 1), Comparison.preferred(2, 0), Comparison.tie(1, 2))
    heavy = replace(pairs[1], weight=3.0)
    one, other = (measure([judged(logits, c)]) for c in ([*pairs, pairs[1], pairs[1]], [*pairs[::2], heavy]))
    for name in ("log_loss", "mean_order_gap", "swap_consistency", "lower_index_accuracy"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12)
        assert getattr(one, name) != pytest.approx(getattr(measure([judged(logits, pairs)]), name), rel=1e-3)
    assert one.accuracy.value == other.accuracy.value == 1 / 4


def test_a_judge_without_presentation_order_has_no_order_gap():
    metrics = measure([judged([[0, 1.0], [-1.0, 0]], [Comparison.preferred(0, 1)], order_free=True)])
    assert math.isnan(metrics.mean_order_gap) and math.isnan(metrics.swap_consistency)


@settings(deadline=None)
@given(a=st.floats(-8, 8), b=st.floats(-8, 8))
@example(a=3.0, b=0.02)
@example(a=-0.02, b=2.0)
def test_p_and_order_gap_determine_whether_the_orders_agree(a, b):
    """`a` and `b` are the log-odds that candidate 0 wins, shown first and shown second."""
    if min(abs(a), abs(b)) < 1e-3:
        return  # float32 cannot tell on which side of a half such an order is
    metrics = measure([judged([[0, a], [-b, 0]], [Comparison.preferred(0, 1)])])
    assert metrics.swap_consistency == float(np.sign(a) == np.sign(b))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_tau_is_that_of_scipy(pairs):
    a, b = zip(*pairs, strict=True)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(kendall_tau(a, b))
    else:
        assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_ranking_metrics_by_hand():
    # The judge ranks 2 > 0 > 1, the truth 1 > 2 > 0: one of three pairs agrees, so tau = (1 - 2) / 3.
    metrics = measure([judged(utilities(1.0, 0.0, 2.0), [], quality=(0.0, 10.0, 6.0))])
    assert metrics.kendall_tau == pytest.approx(-1 / 3)
    assert metrics.best_of_k_regret == 4.0
    assert metrics.random_regret == pytest.approx(10 - 16 / 3)
    p = 1 / (1 + np.exp(-utilities(1.0, 0.0, 2.0)))
    rates = (p.sum(axis=1) - 0.5) / 2
    assert metrics.win_rate_spread == pytest.approx(rates.max() - rates.min(), rel=1e-6)


@pytest.mark.parametrize("quality", [(2.0, 1.0, 0.0), (0.0, 1.0, 2.0), (0.0, 2.0, 1.0)])
def test_a_judge_that_tells_nothing_apart_picks_as_well_as_a_coin(quality):
    metrics = measure([judged(np.zeros((3, 3)), [], quality=quality)])
    assert metrics.best_of_k_regret == metrics.random_regret == 1.0


def test_a_group_that_the_judge_tells_nothing_apart_in_counts_as_no_correlation():
    perfect, silent = utilities(2.0, 1.0, 0.0), np.zeros((3, 3))
    metrics = measure([judged(perfect, [], quality=(2, 1, 0))] + [judged(silent, [], quality=(2, 1, 0))] * 9)
    assert (metrics.kendall_tau, metrics.spearman_rho) == pytest.approx((0.1, 0.1))


def test_a_group_of_equals_says_nothing_about_correlation():
    groups = [judged(utilities(*u), [], quality=q) for u, q in (((1, 0), (1, 0)), ((0, 0), (1, 1)))]
    metrics = measure([*groups, judged(utilities(1, 0), [], quality=(3, 3))])
    assert (metrics.kendall_tau, metrics.spearman_rho) == (1.0, 1.0)


def test_of_several_favourites_any_may_be_picked():
    # 0 and 2 beat 1 and tie with each other: (9 + 5) / 2 against the best, 9.
    metrics = measure([judged(utilities(1.0, 0.0, 1.0), [], quality=(9.0, 7.0, 5.0))])
    assert metrics.best_of_k_regret == 2.0


def test_a_candidate_that_was_not_judged_leaves_the_ranking():
    matrix = WinMatrix.from_order_logits(utilities(1.0, 0.0, 2.0), errors=("", "", "unreadable"))
    group = JudgedGroup(id="a", prompt="a", comparisons=(), quality=(1.0, 0.0, 9.0), tags={}, matrix=matrix)
    metrics = measure([group])
    assert metrics.kendall_tau == 1.0
    assert metrics.best_of_k_regret == 0.0


@settings(deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 99))
def test_renumbering_the_candidates_changes_no_metric(order, seed):
    generator = np.random.default_rng(seed)
    quality = generator.integers(0, 3, size=5).astype(float)
    logits = generator.normal(size=(5, 5))
    place = {old: new for new, old in enumerate(order)}
    comparisons = comparisons_from_scores(quality.tolist())
    before = judged(logits, comparisons, quality=tuple(quality))
    after = JudgedGroup(
        id="a",
        prompt="a",
        comparisons=tuple(Comparison(i=place[c.i], j=place[c.j], p=c.p) for c in comparisons),
        quality=tuple(quality[list(order)]),
        tags={},
        matrix=before.matrix.permuted(order),
    )
    thresholds = Thresholds(split="other", pairs=1, half_tie=0.3, tie_calibrated=0.25)
    one, other = measure([before], thresholds), measure([after], thresholds)
    for name in one.accuracies:
        # "Always first" is about the numbering, and is all that may change.
        parts = (asdict(metrics.accuracies[name].overall) for metrics in (one, other))
        np.testing.assert_equal(*({k: v for k, v in part.items() if k != "always_first"} for part in parts))
    names = "log_loss mean_order_gap swap_consistency triples intransitive_share spearman_rho kendall_tau"
    for name in (*names.split(), "best_of_k_regret", "random_regret", "win_rate_spread"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)
    for name, entry in one.illusory_advantage.items():
        parts = (list(asdict(part).values()) for part in (entry, other.illusory_advantage[name]))
        # Rewards are float32, and a fit stops at some tolerance.
        np.testing.assert_allclose(*parts, rtol=1e-3, atol=1e-5)


def test_pairs_of_the_same_prompt_share_a_number():
    strict = [Comparison.preferred(0, 1)]
    groups = [
        judged(utilities(1, 0), strict, id=i, prompt=p) for i, p in (("a", "x"), ("b", "y"), ("c", "x"))
    ]
    assert pairs_of(groups).prompt.tolist() == [0, 1, 0]
