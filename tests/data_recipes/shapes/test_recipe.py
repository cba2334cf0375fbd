from pathlib import Path

import pytest

from data_recipes.registry import RECIPES
from data_recipes.shapes.oracle import assess
from data_recipes.shapes.prompts import SKILLS, parse_prompt, split_prompts
from data_recipes.shapes.recipe import label
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import Scene
from prefrm import media
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, Comparison, PreferenceGroup, read_groups

SMALL = {"train": 60, "validation": 12, "test": 24}


def picture(program: str) -> bytes:
    return media.encode_png(render(Scene.parse(program)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[PreferenceGroup]]:
    out = tmp_path_factory.mktemp("shapes")
    RECIPES["shapes"].build(out, seed=7, **SMALL)
    return {split: list(read_groups(out, split)) for split in SPLITS}


def test_polarity_on_a_literal_row() -> None:
    """Candidate 1 is what the prompt asks for, candidate 0 is wrong; so P(0 is preferred to 1) is 0."""
    images = (picture("blue star 0 0"), picture("red circle 1 1"), picture("red circle 2 2"))
    group = label("row", parse_prompt("a red circle"), images)
    assert group.quality == (1 / 3, 1.0, 1.0)
    assert group.comparisons == (
        Comparison(i=0, j=1, p=0.0),
        Comparison(i=0, j=2, p=0.0),
        Comparison(i=1, j=2, p=0.5),
    )
    assert (group.prompt, group.tags) == ("a red circle", {"skill": "colors"})


def test_sizes_balance_and_all_pairs(dataset: dict[str, list[PreferenceGroup]]) -> None:
    for split, groups in dataset.items():
        assert len(groups) == SMALL[split]
        skills = [group.tags["skill"] for group in groups]
        assert {skills.count(skill) for skill in SKILLS} == {SMALL[split] // 6}
        for group in groups:
            pairs = [(c.i, c.j) for c in group.comparisons]
            assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_prompts_come_from_their_split_and_quality_from_the_picture(
    dataset: dict[str, list[PreferenceGroup]],
) -> None:
    for split, groups in dataset.items():
        texts = {prompt.text for prompt in split_prompts(split)}
        for group in groups:
            assert group.prompt in texts
            prompt = parse_prompt(group.prompt)
            read_back = tuple(assess(prompt, media.decode(image or b"")).score for image in group.candidates)
            assert group.quality == read_back


def test_texts_are_the_programs_that_draw_the_candidates(dataset: dict[str, list[PreferenceGroup]]) -> None:
    for group in dataset["test"]:
        drawn = [media.encode_png(render(Scene.parse(text or ""))) for text in group.completions or ()]
        assert drawn == list(group.candidates)


def contradicted(groups: list[PreferenceGroup]) -> float:
    """The share of strict comparisons that contradict the quality."""
    strict = [(g.quality or (), c) for g in groups for c in g.comparisons if c.is_strict]
    return sum((quality[c.i] > quality[c.j]) != (c.p == 1.0) for quality, c in strict) / len(strict)


def test_train_is_noisy_and_what_is_held_out_is_clean(dataset: dict[str, list[PreferenceGroup]]) -> None:
    assert 0.05 < contradicted(dataset["train"]) < 0.16
    assert contradicted(dataset["validation"]) == contradicted(dataset["test"]) == 0.0
    for groups in dataset.values():
        for group in groups:
            quality = group.quality or ()
            assert all(c.is_strict == (quality[c.i] != quality[c.j]) for c in group.comparisons)


def test_a_build_is_reproducible_and_a_smaller_one_its_prefix(tmp_path: Path) -> None:
    shapes = RECIPES["shapes"]
    small = {"validation": 1, "test": 1}
    first = shapes.build(tmp_path / "a", seed=1, train=12, **small)
    again = shapes.build(tmp_path / "b", seed=1, train="12", **small)
    assert first.info == again.info
    assert first.groups == {"train": 12, "validation": 1, "test": 1}
    shapes.build(tmp_path / "c", seed=1, train=6, **small)
    assert list(read_groups(tmp_path / "c", "train")) == list(read_groups(tmp_path / "a", "train"))[:6]
    other = shapes.build(tmp_path / "d", seed=2, train=12, **small)
    assert other.info.fingerprints["train"] != first.info.fingerprints["train"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"train": 0}, "train must be at least 1 group; received 0"),
        ({"group_size": 1}, "group_size must be at least 2; received 1"),
        ({"flip": 0.5}, r"flip must be in \[0, 0.5\)"),
        ({"flip": float("nan")}, r"flip must be in \[0, 0.5\)"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RECIPES["shapes"].build(tmp_path, **options)
    assert not list(tmp_path.iterdir())
