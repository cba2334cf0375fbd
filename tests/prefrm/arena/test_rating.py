"""Standings of models: hand-derived values, intervals, and what is not known."""

import numpy as np
import pytest

from prefrm.arena.rating import ELO, MEAN_RATING, standings

NAN = np.nan


def groups(*pairs: float) -> np.ndarray:
    """Win matrices of two models from P(the first wins)."""
    return np.array([[[0.5, p], [1 - p, 0.5]] for p in pairs])


def values(estimates) -> list[float]:
    return [one.value for one in estimates]


def test_two_models_by_hand() -> None:
    # Three wins, a loss, and half a pseudo-win for each: odds of 3.5 to 1.5.
    found = standings(groups(1, 1, 1, 0), np.arange(4))
    assert (found.prompts, found.comparisons) == (4, 4)
    assert found.win_matrix.tolist() == [[0.5, 0.75], [0.25, 0.5]]
    assert values(found.win_rate) == [0.75, 0.25]
    half = ELO * np.log(3.5 / 1.5) / 2
    assert values(found.rating) == pytest.approx([MEAN_RATING + half, MEAN_RATING - half])


def test_the_interval_of_independent_prompts_by_hand() -> None:
    # The delta method on odds of 2.5 to 2.5: a variance of 1 / 5 / (1/4) of the log-odds, half of which is
    # either model's; real comparisons and pseudo-ones have the same residuals, 1/2.
    found = standings(groups(1, 1, 0, 0), np.arange(4))
    residuals = 4 * 0.25 * (4 / 3) + 4 * (0.5 / 2 * 0.5) ** 2 * 1
    sd = np.sqrt(residuals) / (5 * 0.25) / 2
    student = 3.182446305284263  # of three degrees of freedom
    assert found.rating[0].high - MEAN_RATING == pytest.approx(ELO * student * sd)
    assert found.rating[0].low == pytest.approx(2 * MEAN_RATING - found.rating[0].high)


def test_images_of_a_prompt_are_not_independent() -> None:
    random = np.random.default_rng(0)
    p = np.repeat(random.uniform(0.2, 0.9, 20), 4)
    one_each = standings(groups(*p), np.arange(80))
    clustered = standings(groups(*p), np.repeat(np.arange(20), 4))
    for name in ("win_rate", "rating"):
        narrow, wide = getattr(one_each, name)[0], getattr(clustered, name)[0]
        assert narrow.value == pytest.approx(wide.value)
        assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_ratings_recover_utilities() -> None:
    utility = np.array([0.0, 0.4, 1.5, -0.8])
    p = 1 / (1 + np.exp(utility - utility[:, None]))
    found = standings(np.repeat(p[None], 4000, 0), np.arange(4000))
    assert values(found.rating) == pytest.approx(MEAN_RATING + ELO * (utility - utility.mean()), abs=0.5)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, truth, hits, runs = np.random.default_rng(1), np.array([0.6, 0.0, -0.6]), 0, 150
    for _ in range(runs):
        strength = truth + random.normal(0, 0.3, (25, 1, 3))
        p = 1 / (1 + np.exp(strength[..., None, :] - strength[..., None]))
        won = np.triu(random.random((25, 3, 3, 3)) < p, 1)
        won = won + np.tril(1 - won.swapaxes(-1, -2), -1)
        rating = standings(won.reshape(-1, 3, 3), np.repeat(np.arange(25), 3)).rating
        hits += sum(
            one.low <= MEAN_RATING + ELO * u <= one.high for one, u in zip(rating, truth, strict=True)
        )
    assert 0.92 < hits / (3 * runs) < 0.99


def test_models_in_another_order_have_the_same_standings() -> None:
    p = np.random.default_rng(2).uniform(size=(12, 4, 4))
    p = np.triu(p, 1) + np.tril(1 - p.swapaxes(1, 2), -1)
    p[3, 1, :] = p[3, :, 1] = NAN
    order, prompt = [2, 0, 3, 1], np.arange(12) // 2
    found, other = standings(p, prompt), standings(p[:, order][:, :, order], prompt)
    for name in ("win_rate", "rating"):
        for side in ("value", "low", "high"):
            ours = [getattr(getattr(found, name)[m], side) for m in order]
            assert [getattr(one, side) for one in getattr(other, name)] == pytest.approx(ours)


def test_a_certain_judge_has_finite_ratings_with_intervals_that_do_not_vanish() -> None:
    best, worst = standings(groups(*[1.0] * 20), np.arange(20)).rating
    assert np.isfinite([best.low, best.high, worst.low, worst.high]).all()
    assert worst.high < best.low
    assert best.high - best.low > 100


def test_a_model_without_comparisons_has_no_number() -> None:
    p = np.full((3, 3, 3), NAN)
    p[:, :2, :2] = groups(0.7, 0.6, 0.9)
    found = standings(p, np.arange(3))
    assert np.isnan(found.win_matrix[2, :2]).all()
    assert np.isnan([found.win_rate[2].value, found.rating[2].value, found.rating[2].low]).all()
    alone = standings(groups(0.7, 0.6, 0.9), np.arange(3))
    assert values(found.rating[:2]) == values(alone.rating)
    assert found.to_json(["a", "b", "c"])["rating"]["c"] == {"value": None, "low": None, "high": None}


def test_models_that_no_comparison_connects_have_no_common_scale() -> None:
    p = np.full((2, 4, 4), NAN)
    p[0, :2, :2], p[1, 2:, 2:] = groups(0.7, 0.4)
    found = standings(p, np.arange(2))
    assert np.isnan(values(found.rating)).all()
    assert values(found.win_rate) == pytest.approx([0.7, 0.3, 0.4, 0.6])


def test_one_prompt_has_no_interval() -> None:
    first, _ = standings(groups(0.9, 0.8), np.zeros(2, int)).rating
    assert np.isfinite(first.value)
    assert np.isnan([first.low, first.high]).all()
