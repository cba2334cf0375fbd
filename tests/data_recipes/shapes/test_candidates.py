from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from data_recipes.shapes.candidates import FAULTS, make_candidates, with_fault
from data_recipes.shapes.oracle import assess
from data_recipes.shapes.prompts import SKILLS, parse_prompt, sample_prompt
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import MAX_SHAPES, Scene

TWO = Scene.parse("red circle 0 0 ; blue square 2 2")


def faulty(name: str, scene: Scene = TWO) -> Scene:
    result = FAULTS[name](scene, np.random.default_rng(0))
    assert result is not None
    return result


def test_each_fault_is_what_its_name_says() -> None:
    def changed(name: str) -> dict[str, int]:
        """Attribute -> shapes in which the fault changed it."""
        pairs = list(zip(TWO.shapes, faulty(name).shapes, strict=True))
        return {
            a: n
            for a in ("kind", "color", "x")
            if (n := sum(getattr(p, a) != getattr(q, a) for p, q in pairs))
        }

    assert changed("wrong_color") == {"color": 1}
    assert changed("wrong_kind") == {"kind": 1}
    assert changed("wrong_place") == {"x": 1}
    assert faulty("swapped_colors").program() == "blue circle 0 0 ; red square 2 2"
    assert faulty("swapped_places").program() == "red circle 2 2 ; blue square 0 0"
    assert len(faulty("missing_object").shapes) == 1
    assert faulty("extra_object").shapes[:2] == TWO.shapes
    assert len(faulty("extra_object").shapes) == 3


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("missing_object", "red circle 0 0"),
        ("extra_object", " ; ".join(f"red star {n} {n % 2}" for n in range(4)) + " ; red star 0 3"),
        ("swapped_colors", "red circle 0 0"),
        ("swapped_colors", "red circle 0 0 ; red star 1 1"),
        ("swapped_places", "red star 0 0 ; red star 1 1"),
    ],
)
def test_a_fault_that_would_change_nothing_is_not_made(name: str, program: str) -> None:
    assert FAULTS[name](Scene.parse(program), np.random.default_rng(0)) is None


def test_a_scene_stays_a_scene_under_any_faults() -> None:
    rng = np.random.default_rng(0)
    scene = TWO
    for _ in range(500):
        before, scene = scene, with_fault(scene, rng)
        assert scene != before
        assert 1 <= len(scene.shapes) <= MAX_SHAPES


@pytest.mark.parametrize("skill", SKILLS)
def test_groups_spread_over_quality_and_have_ties(skill: str) -> None:
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(60):
        prompt = sample_prompt(rng, skill)
        groups.append([assess(prompt, render(s)).score for s in make_candidates(prompt, 4, rng)])
    scores = Counter(score for group in groups for score in group)
    ties = np.mean([a == b for group in groups for a, b in combinations(group, 2)])
    assert 0.15 < scores[1.0] / scores.total() < 0.55
    assert len(scores) >= 4
    assert 0.1 < ties < 0.45
    assert np.mean([len(set(group)) > 1 for group in groups]) > 0.85


def test_candidates_are_reproducible_and_differ() -> None:
    prompt = parse_prompt("two red stars")
    first, second = (make_candidates(prompt, 8, np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 4
