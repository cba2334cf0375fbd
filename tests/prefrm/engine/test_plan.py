"""Plans depend on a group's content, not on its order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.chunks import runs_within
from prefrm.engine.pass_sizes import PATCHES
from prefrm.engine.plan import WHOLE, enough_rows, fixed_shape, plan_group, runs_of_rows
from prefrm.winmatrix import Group

images = st.lists(st.sampled_from([b"a", b"b", b"c", b"", None]), min_size=2, max_size=7)


@given(images, st.randoms())
def test_a_permuted_group_is_the_same_work_in_the_same_order(candidates, random):
    order = list(range(len(candidates)))
    random.shuffle(order)
    group = Group(prompt="x", candidates=tuple(candidates))
    plan, permuted = plan_group(group), plan_group(group.permuted(order))
    assert list(plan.candidates.items()) == list(permuted.candidates.items())
    readable = list(plan.candidates)
    assert plan.pairs(readable) == permuted.pairs(readable)


@given(images)
def test_every_pair_of_readable_candidates_gets_the_number_of_its_images(candidates):
    plan = plan_group(Group(prompt="x", candidates=tuple(candidates)))
    log_odds = {pair: float(n) for n, pair in enumerate(plan.pairs(list(plan.candidates)))}
    spread = plan.spread(log_odds)
    for i, a in enumerate(plan.places):
        for j, b in enumerate(plan.places):
            if i != j and a and b:
                assert spread[i, j] == log_odds[a, b]
            elif i != j:
                assert np.isnan(spread[i, j])


def test_distinct_images_are_compared_in_both_orders_and_never_with_themselves():
    plan = plan_group(Group(prompt="x", candidates=(b"a", b"b", b"c")))
    pairs = plan.pairs(list(plan.candidates))
    assert len(pairs) == 6 and all(a != b and (b, a) in pairs for a, b in pairs)


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 120))
def test_runs_cover_all_rows_in_order_within_the_tokens(lengths, tokens):
    runs = list(runs_of_rows(lengths, tokens))
    assert [row for run in runs for row in run] == list(range(len(lengths)))
    for run in runs:
        padded = len(run) * max(lengths[row] for row in run)
        assert padded <= tokens or len(run) == 1


@given(st.integers(1, 5000), st.integers(1, 9000))
def test_a_length_has_one_shape_with_little_padding(length, tokens):
    shape = fixed_shape(length, tokens)
    assert fixed_shape(shape.length, tokens) == shape
    assert length <= shape.length <= max(length * 17 / 16 + 1, length + 7)
    assert (shape.length == 1) == (length == 1)
    assert shape.rows == 1 or (shape.rows * shape.length <= tokens and not shape.rows * shape.length % WHOLE)


@given(st.integers(1, 3000), st.data())
def test_a_pass_that_need_not_be_full_has_less_than_twice_the_rows_it_needs(most, data):
    rows = data.draw(st.integers(1, most))
    found = enough_rows(most, rows)
    assert rows <= found <= most and (found == 1 or found < 2 * rows)
    assert len({enough_rows(most, n) for n in range(1, most + 1)}) <= most.bit_length() + 1


def test_few_lengths_are_left():
    lengths = [fixed_shape(n, 2048).length for n in range(1, 4097)]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) < 100


# Patches of Qwen2.5-VL's 14 x 14 in images of 1 megapixel that are shown at 512 x 512, and in small ones.
SHAPES = [1296, 1280, 1280, 1288, 1288, 1296, 1296, 1200]
SMALL = [968, 1148, 308]


@pytest.mark.parametrize(
    ("patches", "passes", "padding"),
    [
        (SHAPES[:1], 1, 0.85),
        (SHAPES[:1] * 8, 2, 0.37),
        (SHAPES, 2, 0.38),
        ((SHAPES + SMALL) * 3, 5, 0.12),
    ],
    ids=["one image", "eight of one shape", "eight of eight shapes", "33 mixed"],
)
def test_passes_that_are_filled_up_to_one_size_and_their_padding(patches, passes, padding):
    """The price of `deterministic`; other packed passes have no padding."""
    runs = list(runs_within(zip(patches, patches, strict=True), PATCHES))
    assert len(runs) == passes
    assert all(sum(run) <= PATCHES for run in runs)
    assert 1 - sum(patches) / (passes * PATCHES) < padding
