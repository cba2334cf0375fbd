"""Every group is brought together on exactly one process, whatever the split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.errors import ConfigError
from prefrm.grpo.layout import Candidate, Layout, pack, unpack


@st.composite
def splits(draw):
    """Counts by process that add up to whole groups, and the group size."""
    size = draw(st.integers(1, 5))
    counts = draw(st.lists(st.integers(0, 12), min_size=1, max_size=6))
    counts[-1] += -sum(counts) % size
    return tuple(counts), size


@given(splits())
def test_every_group_is_collected_once_and_every_row_comes_back(split):
    counts, size = split
    layouts = [Layout(counts=counts, size=size, rank=rank) for rank in range(len(counts))]
    rows = list(range(sum(counts)))
    local = [layout.own(rows) for layout in layouts]
    assert [row for part in local for row in part] == rows

    heads = [part[: layout.head] for layout, part in zip(layouts, local, strict=True)]
    groups = [
        group for layout, part in zip(layouts, local, strict=True) for group in layout.collect(part, heads)
    ]
    assert groups == [rows[n : n + size] for n in range(0, len(rows), size)]


def test_only_what_another_process_needs_travels():
    # Two groups of 6 over three processes of 4: 0..3 | 4 5, 6 7 | 8..11.
    layouts = [Layout(counts=(4, 4, 4), size=6, rank=rank) for rank in range(3)]
    assert [layout.head for layout in layouts] == [0, 2, 4]
    assert [layout.owned for layout in layouts] == [1, 1, 0]
    # Whole groups on every process: nothing travels.
    assert [Layout(counts=(6, 12), size=6, rank=rank).head for rank in range(2)] == [0, 0]


def test_what_is_no_whole_number_of_groups_is_refused():
    with pytest.raises(ConfigError, match=r"7 completions \(by process: \[3, 4\]\) are no whole groups of 6"):
        Layout(counts=(3, 4), size=6, rank=0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


DATA = st.binary(max_size=20)
CANDIDATES = st.builds(
    Candidate, prompt=TEXT, content=st.none() | DATA | TEXT, context=st.lists(DATA, max_size=2).map(tuple)
)


@given(st.lists(CANDIDATES, max_size=5))
def test_candidates_survive_packing(candidates):
    assert unpack(pack(candidates)) == candidates
