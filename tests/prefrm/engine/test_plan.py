"""Plans depend on a group's content, not on its order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefrm.engine.plan import plan_group, runs_of_rows
from prefrm.winmatrix import Group

images = st.lists(st.sampled_from([b"a", b"b", b"c", b"", None]), min_size=2, max_size=7)


@given(images, st.randoms())
def test_a_permuted_group_is_the_same_work_in_the_same_order(candidates, random):
    order = list(range(len(candidates)))
    random.shuffle(order)
    group = Group(prompt="x", images=tuple(candidates))
    plan, permuted = plan_group(group), plan_group(group.permuted(order))
    assert list(plan.images.items()) == list(permuted.images.items())
    readable = list(plan.images)
    assert plan.pairs(readable) == permuted.pairs(readable)


@given(images)
def test_every_pair_of_readable_candidates_gets_the_number_of_its_images(candidates):
    plan = plan_group(Group(prompt="x", images=tuple(candidates)))
    log_odds = {pair: float(n) for n, pair in enumerate(plan.pairs(list(plan.images)))}
    spread = plan.spread(log_odds)
    for i, a in enumerate(plan.places):
        for j, b in enumerate(plan.places):
            if i != j and a and b:
                assert spread[i, j] == log_odds[a, b]
            elif i != j:
                assert np.isnan(spread[i, j])


def test_distinct_images_are_compared_in_both_orders_and_never_with_themselves():
    plan = plan_group(Group(prompt="x", images=(b"a", b"b", b"c")))
    pairs = plan.pairs(list(plan.images))
    assert len(pairs) == 6 and all(a != b and (b, a) in pairs for a, b in pairs)


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 120))
def test_runs_cover_all_rows_in_order_within_the_tokens(lengths, tokens):
    runs = list(runs_of_rows(lengths, tokens))
    assert [row for run in runs for row in run] == list(range(len(lengths)))
    for run in runs:
        padded = len(run) * max(lengths[row] for row in run)
        assert padded <= tokens or len(run) == 1
