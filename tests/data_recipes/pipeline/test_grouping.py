"""Judgements of one prompt become groups: votes are merged, no comparison is lost, places tell nothing."""

import itertools
import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_recipes.pipeline.grouping import Draft, Said, draft_groups


def pair(n: int, first: str, second: str, p: float, weight: float = 1.0, set: str = "", **tags: str) -> Said:
    return Said(n, f"row:{n}", first, second, p, weight, set, json.dumps(tags))


def rating(n: int, image: str, score: float | None, set: str = "", deviation: float = 0.0) -> Said:
    return Said(n, f"row:{n}", image, None, score, deviation, set, "{}")


def said_of(drafts: Sequence[Draft]) -> dict[tuple[str, str], tuple[float, float]]:
    """(lower, higher digest) -> (p that the lower is preferred, weight)."""
    found = {}
    for draft in drafts:
        assert list(draft.candidates) == sorted(set(draft.candidates))
        for i, j, p, weight in draft.comparisons:
            assert i < j
            found[draft.candidates[i], draft.candidates[j]] = (p, weight)
    return found


def test_votes_on_the_same_two_images_are_one_comparison() -> None:
    (draft,) = draft_groups(
        [pair(0, "a", "b", 1.0, 3.0), pair(1, "b", "a", 0.75, 4.0), pair(2, "b", "c", 0.5)], max_candidates=8
    )
    assert said_of([draft]) == {("a", "b"): (4 / 7, 7.0), ("b", "c"): (0.5, 1.0)}
    assert draft.contradictory == ((0, 1),)
    assert (draft.id, draft.quality) == ("row:0", None)


def test_tags_are_those_of_all_judgements() -> None:
    (draft,) = draft_groups([pair(0, "a", "b", 1.0, x="1", y="2"), pair(1, "a", "c", 1.0, x="1", y="3")], 8)
    assert draft.tags == {"x": "1"}


def test_a_judgement_that_stands_several_times_in_one_set_counts_once() -> None:
    rows = [("a", "b", 1.0), ("b", "a", 0.0), ("a", "b", 1.0)]
    same = [pair(n, *row, set="file") for n, row in enumerate(rows)]
    (draft,) = draft_groups(same, 8)
    assert draft.comparisons == ((0, 1, 1.0, 1.0),)
    (draft,) = draft_groups([*same, pair(3, "a", "b", 0.0, set="file"), pair(4, "a", "b", 1.0)], 8)
    assert draft.comparisons == ((0, 1, 2 / 3, 3.0),)
    assert draft.contradictory == ((0, 1),)


def test_ratings_of_one_set_are_compared_and_kept_as_quality() -> None:
    ratings = [rating(0, "b", 2.0), rating(1, "a", 3.0), rating(2, "c", 2.0)]
    (draft,) = draft_groups(ratings, 8)
    assert said_of([draft]) == {("a", "b"): (1.0, 1.0), ("a", "c"): (1.0, 1.0), ("b", "c"): (0.5, 1.0)}
    assert draft.quality == (3.0, 2.0, 2.0)


def test_annotators_rank_the_same_images() -> None:
    """Two of three agree: p is the share, weight their number, and no image has a quality."""
    ratings = [
        rating(n, "ab"[n % 2], float((n % 2) == (n == 5 or n == 4)), set=str(n // 2)) for n in range(6)
    ]
    (draft,) = draft_groups(ratings, 8)
    assert {p for p, _ in said_of([draft]).values()} <= {1 / 3, 2 / 3}
    assert (draft.comparisons[0][3], draft.quality, draft.contradictory) == (3.0, None, ((0, 1),))


def test_sets_under_one_prompt_are_groups_of_their_own() -> None:
    ratings = [rating(0, "a", 1, "x"), rating(1, "b", 2, "x"), rating(2, "c", 5, "y"), rating(3, "d", 1, "y")]
    drafts = list(draft_groups(ratings, 8))
    assert [(draft.id, draft.candidates, draft.quality) for draft in drafts] == [
        ("row:0", ("a", "b"), (1, 2)),
        ("row:2", ("c", "d"), (5, 1)),
    ]


def test_deviations_give_thurstone_probabilities() -> None:
    ((_, (p, _)),) = said_of(
        list(draft_groups([rating(0, "a", 1.0, "", 3.0), rating(1, "b", 0.0, "", 4.0)], 8))
    ).items()
    assert p == pytest.approx(0.5 * (1 + math.erf(1 / 5 / math.sqrt(2))))


def test_images_without_scores_are_grouped_and_not_compared() -> None:
    (draft,) = draft_groups([rating(0, "a", None), rating(1, "b", None), rating(2, "c", None)], 8)
    assert (draft.candidates, draft.comparisons, draft.quality) == (("a", "b", "c"), (), None)
    assert list(draft_groups([rating(0, "a", None)], 8)) == []


@pytest.mark.parametrize("shape", ["chain", "star", "all"])
def test_many_linked_pairs_become_groups_of_bounded_size_and_none_is_lost(shape: str) -> None:
    names = [f"{n:02d}" for n in range(20)]
    edges = {
        "chain": list(itertools.pairwise(names)),
        "star": [(names[0], name) for name in names[1:]],
        "all": list(itertools.combinations(names, 2)),
    }[shape]
    drafts = list(draft_groups([pair(n, *edge, 1.0) for n, edge in enumerate(edges)], 8))
    assert max(len(draft.candidates) for draft in drafts) == 8
    assert sum(len(draft.comparisons) for draft in drafts) == len(edges)
    assert said_of(drafts) == {edge: (1.0, 1.0) for edge in edges}
    assert len({draft.id for draft in drafts}) == len(drafts)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0]))
    ),
    st.integers(2, 5),
)
def test_no_vote_is_lost_whichever_way_round_it_is_written(
    votes: list[tuple[str, str, float]], most: int
) -> None:
    pairs = [pair(n, a, b, p) for n, (a, b, p) in enumerate(votes) if a != b]
    turned = [
        one._replace(first=one.second or "", second=one.first, value=1.0 - (one.value or 0)) for one in pairs
    ]
    drafts = list(draft_groups(pairs, most))
    assert drafts == list(draft_groups(turned, most))
    assert all(2 <= len(draft.candidates) <= most for draft in drafts)
    assert sum(weight for draft in drafts for *_, weight in draft.comparisons) == len(pairs)
