"""Preference groups: their rules, and the one polarity."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.errors import RecordError
from prefrm.records import Comparison, comparisons_from_ranking, comparisons_from_scores
from prefrm.winmatrix import Group
from tests.prefrm.records.drawn import comparisons, pair


class TestPolarity:
    """`p` is the probability that candidate i is preferred to candidate j."""

    def test_preferred(self):
        assert Comparison.preferred(2, 5) == Comparison(i=2, j=5, p=1.0)
        assert Comparison.preferred(2, 5, weight=3.0).weight == 3.0

    def test_a_higher_score_is_preferred(self):
        assert comparisons_from_scores([1.0, 3.0, 3.0]) == (
            Comparison(i=0, j=1, p=0.0),
            Comparison(i=0, j=2, p=0.0),
            Comparison(i=1, j=2, p=0.5),
        )

    def test_a_lower_rank_is_preferred(self):
        assert comparisons_from_ranking([1, 2, None, 1]) == (
            Comparison(i=0, j=1, p=1.0),
            Comparison(i=0, j=3, p=0.5),
            Comparison(i=1, j=3, p=0.0),
        )

    @given(st.lists(st.none() | st.floats(allow_nan=False), max_size=6))
    def test_scores_and_comparisons_agree(self, scores):
        made = comparisons_from_scores(scores)
        known = sum(score is not None for score in scores)
        assert len(made) == known * (known - 1) // 2
        for c in made:
            assert c.i < c.j
            assert (c.p > 0.5) == (scores[c.i] > scores[c.j])
            assert c.is_strict == (scores[c.i] != scores[c.j])

    @given(st.lists(st.integers(1, 5), min_size=2, max_size=6))
    def test_a_ranking_is_the_scores_turned_over(self, ranks):
        assert comparisons_from_ranking(ranks) == comparisons_from_scores([-rank for rank in ranks])

    @pytest.mark.parametrize("make", [comparisons_from_scores, comparisons_from_ranking])
    def test_a_nan_is_no_lost_comparison(self, make):
        with pytest.raises(RecordError, match="use None"):
            make([1.0, math.nan])

    @given(comparisons(range(4)))
    def test_swapping_says_the_same_and_flipping_the_opposite(self, c):
        swapped, flipped = c.swapped(), c.flipped()
        assert (swapped.i, swapped.j) == (c.j, c.i)
        assert (flipped.i, flipped.j) == (c.i, c.j)
        assert swapped.p == flipped.p == 1 - c.p
        assert swapped.weight == flipped.weight == c.weight
        assert swapped.swapped().p == pytest.approx(c.p, abs=2**-53)

    def test_a_tie_is_not_strict_whichever_way_round(self):
        tie = Comparison.tie(0, 1, weight=2.0)
        assert not tie.is_strict
        assert tie.flipped() == tie
        assert tie.swapped() == Comparison.tie(1, 0, weight=2.0)
        assert Comparison.preferred(0, 1).swapped() == Comparison.preferred(1, 0).flipped()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(i=1, j=1, p=0.5), "two different candidates; received i=1, j=1"),
        (dict(i=-1, j=1, p=0.5), "two different candidates; received i=-1"),
        (dict(i=0, j=1, p=1.1), "received 1.1"),
        (dict(i=0, j=1, p=-0.1), "received -0.1"),
        (dict(i=0, j=1, p=math.nan), "received nan"),
        (dict(i=0, j=1, p=0.5, weight=0.0), "weight must be positive and finite; received 0.0"),
        (dict(i=0, j=1, p=0.5, weight=-1.0), "received -1.0"),
        (dict(i=0, j=1, p=0.5, weight=math.inf), "received inf"),
        (dict(i=0, j=1, p=0.5, weight=math.nan), "received nan"),
    ],
)
def test_a_bad_comparison_is_refused(fields, message):
    with pytest.raises(RecordError, match=message):
        Comparison(**fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(candidates=(b"x",), comparisons=()), "'r1' has 1 candidates; a group needs at least 2"),
        (dict(quality=(1.0,)), "'r1' has 2 candidates but 1 qualities"),
        (dict(completions=("a", "b", "c")), "'r1' has 2 candidates but 3 completions"),
        (dict(comparisons=(Comparison.tie(0, 2),)), "compares candidates 0 and 2 but has 2"),
        *(
            (dict(candidates=candidates), "compares candidates 1 and 0, one of which is missing")
            for candidates in ((b"x", None), (b"x", b""), ("", "x"))
        ),
    ],
)
def test_a_bad_group_is_refused_by_name(changes, message):
    with pytest.raises(RecordError, match=message):
        pair(**changes)


def test_a_scorer_sees_no_label():
    assert pair(quality=(0.0, 1.0), completions=("a", "b")).group() == Group(
        prompt="a cat", candidates=(b"x", b"y")
    )


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_a_blank_prompt_is_no_task(prompt):
    with pytest.raises(RecordError, match="record 'r1' has an empty prompt"):
        pair(prompt=prompt)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "r\udc80"},
        {"prompt": "a \ud83d"},
        {"completions": ("\ud83d", None)},
        {"tags": {"skill": "\ud83d"}},
    ],
)
def test_half_a_character_is_no_text(changes):
    with pytest.raises(RecordError, match="is not valid Unicode text"):
        pair(**changes)
