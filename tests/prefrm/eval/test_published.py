"""Each published definition on a few groups, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from prefrm.errors import ConfigError
from prefrm.eval import (
    PUBLISHED,
    JudgedGroup,
    Thresholds,
    both_orders,
    by_ranking,
    choose_definitions,
    published_accuracies,
)
from prefrm.records import Comparison, DatasetInfo, SplitCounts
from prefrm.winmatrix import WinMatrix

THRESHOLDS = Thresholds(split="validation", pairs=9, half_tie=0.2, tie_calibrated=0.0)


def judged(
    p: list[list[float]],
    comparisons: list[tuple[int, int, float, float]],
    *,
    prompt: str = "a",
    half_gap: float = 0.0,
) -> JudgedGroup:
    """A group of which the judge says `p` in the upper triangle; `half_gap` is in log-odds, either way."""
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = np.triu(np.log(np.array(p) / (1 - np.array(p))), 1)
    # [i, j]: i is presented first. An order that favours the first image by half_gap.
    return JudgedGroup(
        id=prompt,
        prompt=prompt,
        comparisons=tuple(Comparison(i=i, j=j, p=t, weight=w) for i, j, t, w in comparisons),
        quality=None,
        tags={},
        matrix=WinMatrix.from_order_logits(upper - upper.T + half_gap),
    )


def pair(said: float, target: float, weight: float = 1.0, *, half_gap: float = 0.0) -> JudgedGroup:
    return judged([[0.5, said], [1 - said, 0.5]], [(0, 1, target, weight)], half_gap=half_gap)


# Right with 9 votes, wrong with 1, a narrow tie of the dataset, a narrow win, and 0.5 on a strict pair.
PAIRS = [pair(0.9, 1, 9), pair(0.3, 0.8), pair(0.55, 0.5, 2), pair(0.58, 1), pair(0.5, 0)]


def test_each_definition_on_the_same_five_pairs() -> None:
    values = {name: entry.value for name, entry in published_accuracies(PAIRS, THRESHOLDS).items()}
    assert values == pytest.approx(
        {
            # Strict pairs, each once: right, wrong, right, a tie of the judge that is wrong.
            "hpdv3": 2 / 4,
            "imagereward": 2 / 4,
            # Each group is a pair; all have one prompt, and still count apart.
            "imagereward_groups": 2 / 4,
            # The win rates of the last group are equal: index 0 ranks first, and the label prefers 1.
            "hpdv2": 2 / 4,
            # By votes, ties up to a margin of 0.2: right 9, wrong 0 of 1, both tie 2, half right 1/2, 1/2.
            "pickapic": (9 + 0 + 2 + 0.5 + 0.5) / 14,
            # Strict votes: 9 right, 1 wrong, 1 right, 1 wrong.
            "genai_bench": 10 / 12,
            "mmrb2": 2 / 4,
        }
    )
    assert set(published_accuracies(PAIRS)) == set(PUBLISHED) - {"pickapic"}


def test_a_mean_over_groups_counts_a_small_ranking_as_much_as_a_large_one() -> None:
    """Three candidates with all three pairs right, and one pair wrong; both groups have one prompt."""
    large = judged(
        [[0.5, 0.9, 0.9], [0.1, 0.5, 0.9], [0.1, 0.1, 0.5]], [(0, 1, 1, 1), (0, 2, 1, 1), (1, 2, 1, 1)]
    )
    found = published_accuracies([large, pair(0.9, 0)])
    assert found["imagereward"].value == pytest.approx(3 / 4)
    assert found["imagereward_groups"].value == pytest.approx(1 / 2)
    assert found["hpdv2"].value == pytest.approx(1 / 2)


def test_inversions_are_those_of_the_ranking_and_not_of_the_pairs() -> None:
    """The judge prefers c to a, against the ranking a, b, c that its win rates 0.7, 0.475, 0.325 give."""
    said = [[0.5, 0.95, 0.45], [0.05, 0.5, 0.9], [0.55, 0.1, 0.5]]
    group = judged(said, [(0, 1, 1, 1), (2, 0, 0, 1), (1, 2, 1, 1)])
    found = published_accuracies([group])
    assert found["imagereward"].value == pytest.approx(2 / 3)
    assert found["hpdv2"].value == 1.0
    assert by_ranking([group]).p.tolist() == [1, 0, 1]


def test_a_candidate_that_was_not_judged_has_no_place_in_the_ranking() -> None:
    nan = float("nan")
    group = judged([[0.5, 0.9, nan], [0.1, 0.5, nan], [nan, nan, 0.5]], [(0, 1, 1, 1), (1, 2, 1, 1)])
    ranked = published_accuracies([group])["hpdv2"]
    assert (ranked.value, ranked.pairs, ranked.unjudged) == (1.0, 1, 1)


def test_both_orders_are_asked_of_each_pair() -> None:
    """Log-odds of 1 and of 3, and 2 more for whichever image is first: the narrow verdict turns round."""
    narrow, clear = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-3))
    groups = [pair(narrow, 1, half_gap=2), pair(clear, 1, half_gap=2), pair(clear, 0, half_gap=2)]
    log_odds = [1 - 2, 3 - 2, 3 - 2, 1 + 2, 3 + 2, 3 + 2]
    assert both_orders(groups).p == pytest.approx(1 / (1 + np.exp(-np.array(log_odds))), abs=1e-6)
    found = published_accuracies(groups)
    assert found["mmrb2"].value == pytest.approx((1 + 2 + 0) / 6) and found["mmrb2"].pairs == 6
    assert found["hpdv3"].value == pytest.approx(2 / 3)


def info(recipe: str, **options: str) -> DatasetInfo:
    return DatasetInfo(recipe=recipe, options=options, fingerprints={})


def test_a_dataset_is_shown_beside_what_is_published_on_it() -> None:
    assert choose_definitions((), info("hpdv3", seed="0")) == ("hpdv3",)
    assert choose_definitions((), info("imagereward", axis="rank")) == ("imagereward", "imagereward_groups")
    assert choose_definitions((), info("imagereward", axis="fidelity")) == ()
    assert choose_definitions((), info("pickapic", evaluation="unique"), fitted=None) == ()
    assert choose_definitions(("mmrb2",), info("hpdv3")) == ("mmrb2",)
    assert choose_definitions((), None) == ()


@pytest.mark.parametrize(
    ("drawn", "complete", "shown"),
    [(False, True, ("hpdv3",)), (True, True, ()), (False, False, ())],
    ids=["published", "drawn from a train file", "judgements left out"],
)
def test_a_published_column_needs_the_whole_published_split(
    drawn: bool, complete: bool, shown: tuple[str, ...]
) -> None:
    counts = SplitCounts(groups=1, candidates=2, strict=1, ties=0)
    other = replace(counts, drawn=True, complete=False)
    splits = {"test": replace(counts, drawn=drawn, complete=complete), "validation": other}
    data = replace(info("hpdv3"), splits=splits)
    assert choose_definitions((), data) == shown
    assert choose_definitions(("hpdv3",), data) == ("hpdv3",)


@pytest.mark.parametrize(
    ("drawn", "complete", "fitted", "shown"),
    [
        (False, True, "validation", ("pickapic",)),
        (True, True, "validation", ()),
        (False, False, "validation", ()),
        (False, True, "train", ()),
    ],
)
def test_a_threshold_is_tuned_on_the_whole_published_split(
    drawn: bool, complete: bool, fitted: str, shown: tuple[str, ...]
) -> None:
    counts = SplitCounts(groups=1, candidates=2, strict=1, ties=0)
    splits = {"test": counts, "train": counts, "validation": replace(counts, drawn=drawn, complete=complete)}
    data = replace(info("pickapic", evaluation="unique"), splits=splits)
    assert choose_definitions((), data, fitted=fitted) == shown
    assert choose_definitions(("pickapic",), data, fitted=fitted) == ("pickapic",)


def test_a_definition_that_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of hpdv3, .*; received 'hpdv4'"):
        choose_definitions(("hpdv4",))
    with pytest.raises(ConfigError, match="pickapic needs a tie threshold"):
        choose_definitions(("hpdv3", "pickapic"), fitted=None)
    with pytest.raises(ConfigError, match="tie threshold"):
        PUBLISHED["pickapic"].accuracy(PAIRS)


def test_each_definition_names_a_recipe_and_the_options_that_it_has() -> None:
    from data_recipes.registry import RECIPES

    for definition in PUBLISHED.values():
        recipe = RECIPES[definition.recipe]
        built = recipe.read_options({"source": "somewhere"})
        # The defaults of a recipe are those of the published test split.
        assert {name: getattr(built, name) for name in definition.options} == definition.options
