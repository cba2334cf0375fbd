from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.chunks import chunks, runs_within
from prefrm.errors import ConfigError


def test_runs_are_drawn_as_they_are_needed():
    items = iter(range(5))
    runs = chunks(items, 2)
    assert next(runs) == [0, 1]
    assert next(items) == 2
    assert list(runs) == [[3, 4]]
    assert list(chunks([], 2)) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size):
    with pytest.raises(ConfigError, match=f"at least 1 item; received {size}"):
        list(chunks([1], size))


@given(st.lists(st.integers(0, 70), max_size=20), st.integers(0, 100))
def test_runs_cover_all_items_in_order_within_their_bound(sizes, most):
    drawn = []
    items = ((n, drawn.append(n) or size) for n, size in enumerate(sizes))
    runs = []
    for run in runs_within(items, most):
        runs.append(run)
        assert len(drawn) <= sum(map(len, runs)) + 1
    assert [n for run in runs for n in run] == list(range(len(sizes)))
    assert all(len(run) == 1 or sum(sizes[n] for n in run) <= most for run in runs)
    # No run could have had the next item as well.
    assert all(sum(sizes[n] for n in [*a, b[0]]) > most for a, b in pairwise(runs))
