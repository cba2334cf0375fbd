"""The study of chosen pairs: which pairs it asks about, and what it makes of accuracies."""

import math
from pathlib import Path

import numpy as np
import pytest

from prefrm.bench.collecting import (
    QUICK,
    Point,
    _choose,
    _write_answers,
    answers_needed,
    report_collecting,
)
from prefrm.errors import ConfigError
from prefrm.records import PreferenceGroup, comparisons_from_scores, read_groups, write_groups
from prefrm.winmatrix import WinMatrix

GROUPS = [
    PreferenceGroup(
        id=f"g{n}",
        prompt=f"prompt {n}",
        candidates=("a", "b", "c"),
        comparisons=comparisons_from_scores([0.0, 1.0, 1.0]),
    )
    for n in range(20)
]


def matrix(scale: float) -> WinMatrix:
    u = scale * np.arange(3)
    return WinMatrix.from_order_logits(u[:, None] - u[None, :])


def points(chosen: list[float], chance: list[float]) -> list[Point]:
    """Curves at 100, 200, 400, 800 answers."""
    return [
        Point(order=order, seed=seed, answers=100 * 2**n, accuracy=value + shift, ties=0.25)
        for order, curve in (("informative", chosen), ("random", chance))
        for n, value in enumerate(curve)
        for seed, shift in ((0, -0.01), (1, 0.01))
    ]


def test_the_answers_that_an_accuracy_takes_are_interpolated() -> None:
    accuracy, share = answers_needed(points([0.6, 0.7, 0.8, 0.9], [0.6, 0.65, 0.7, 0.75]))
    assert accuracy == pytest.approx(0.75)
    assert share == pytest.approx(math.sqrt(200 * 400) / 800)
    same, as_many = answers_needed(points([0.6, 0.7, 0.8, 0.9], [0.6, 0.7, 0.8, 0.9]))
    assert (same, as_many) == (pytest.approx(0.9), pytest.approx(1.0))
    assert math.isnan(answers_needed(points([0.6, 0.61, 0.62, 0.63], [0.6, 0.7, 0.8, 0.9]))[1])


def test_chosen_pairs_are_of_the_uncertain_groups_and_none_is_asked_twice() -> None:
    judged = [[matrix(0.1 if n >= 15 else 6.0) for n in range(20)]]
    asked = [("g15", 0, 1), ("g16", 0, 2)]
    chosen = _choose(GROUPS, asked, judged, 13, "informative", seed=0)
    assert {group for group, _, _ in chosen} == {f"g{n}" for n in range(15, 20)}
    assert len({*chosen, *asked}) == 15 and all(i < j for _, i, j in chosen)
    by_chance = _choose(GROUPS, asked, [], 40, "random", seed=0)
    assert len({group for group, _, _ in by_chance}) > 15
    with pytest.raises(ConfigError, match="the pool has 60 pairs"):
        _choose(GROUPS, asked, [], 59, "random", seed=0)


def test_the_answers_are_a_dataset_of_the_candidates_that_were_asked_about(tmp_path: Path) -> None:
    for split in ("validation", "test"):
        write_groups(GROUPS[:2], tmp_path / "data", split)
    _write_answers(GROUPS, [("g3", 0, 2), ("g3", 1, 2), ("g5", 1, 2)], tmp_path / "out", tmp_path / "data")
    first, second = read_groups(tmp_path / "out", "train")
    assert (first.id, first.candidates) == ("g3", ("a", "b", "c"))
    assert [(c.i, c.j, c.p) for c in first.comparisons] == [(0, 2, 0.0), (1, 2, 0.5)]
    assert (second.id, second.candidates) == ("g5", ("b", "c"))
    assert [(c.i, c.j, c.p) for c in second.comparisons] == [(0, 1, 0.5)]


def test_the_report_states_the_share(tmp_path: Path) -> None:
    report_collecting(QUICK, points([0.6, 0.7, 0.8, 0.9], [0.6, 0.65, 0.7, 0.75]), tmp_path)
    text = (tmp_path / "collecting.md").read_text()
    assert "0.750, takes 0.35 of as many chosen ones" in text
    assert "| 800     | 0.900 (0.890 to 0.910) | 0.750 (0.740 to 0.760) |" in text
    assert (tmp_path / "collecting.png").stat().st_size > 5000
