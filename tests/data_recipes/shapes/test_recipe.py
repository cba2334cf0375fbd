from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from data_recipes.registry import RECIPES
from data_recipes.shapes import clips, criteria, edits, questions, recipe
from data_recipes.shapes.clips import Clip
from data_recipes.shapes.definition import World, encode_scene
from data_recipes.shapes.recipe import WORLD, label
from data_recipes.shapes.scene import Scene
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, Comparison, PreferenceGroup, read_groups

WORLDS = {module.WORLD.name: module.WORLD for module in (recipe, edits, clips, questions, criteria)}
SMALL = {"train": 60, "validation": 30, "test": 30}

Dataset = tuple[World, dict[str, list[PreferenceGroup]]]


def picture(program: str) -> bytes:
    return encode_scene(Scene.parse(program))


@pytest.fixture(scope="module", params=list(WORLDS))
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("shapes")
    RECIPES[request.param].build(out, seed=7, **SMALL)
    return WORLDS[request.param], {split: list(read_groups(out, split)) for split in SPLITS}


def test_polarity_on_a_literal_row() -> None:
    """Candidate 1 is what the prompt asks for, candidate 0 is wrong; so P(0 is preferred to 1) is 0."""
    images = (picture("blue star 0 0"), picture("red circle 1 1"), picture("red circle 2 2"))
    group = label(WORLD, "row", "a red circle", images)
    assert group.quality == (1 / 3, 1.0, 1.0)
    assert group.comparisons == (
        Comparison(i=0, j=1, p=0.0),
        Comparison(i=0, j=2, p=0.0),
        Comparison(i=1, j=2, p=0.5),
    )
    assert (group.prompt, group.tags) == ("a red circle", {"skill": "colors"})


def clip(*programs: str) -> bytes:
    start, end = map(Scene.parse, programs)
    return WORLDS["shapes-clips"].encode(Clip(start=start, end=end))


PICTURE = (picture("red star 0 0 ; blue circle 3 3"),)


@pytest.mark.parametrize(
    ("world", "prompt", "context", "criterion", "candidates", "quality"),
    [
        (
            "shapes-edits",
            "make the star green",
            PICTURE,
            "",
            (
                picture("green star 0 0 ; blue circle 3 3"),  # right
                PICTURE[0],  # nothing changed
                picture("red star 0 0 ; green circle 3 3"),  # another thing was changed
                picture("green star 0 0 ; blue circle 3 3 ; black star 0 3"),  # and something was added
            ),
            (1, 2 / 3, 1 / 3, 2 / 3),
        ),
        (
            "shapes-edits",
            "remove the star",
            PICTURE,
            "",
            (picture("blue circle 3 3"), PICTURE[0]),
            (1, 1 / 3),
        ),
        (
            "shapes-edits",
            "add a black square at the left",
            PICTURE,
            "",
            (
                picture("red star 0 0 ; blue circle 3 3 ; black square 1 2"),
                picture("red star 0 0 ; blue circle 3 3 ; black square 2 1"),
            ),
            (1, 3 / 4),
        ),
        (
            "shapes-clips",
            "a red circle moves left",
            (),
            "",
            (
                clip("red circle 3 1", "red circle 0 1"),
                clip("red circle 0 1", "red circle 3 1"),  # the other way
                clip("red circle 3 1", "red circle 3 1"),  # stands still
                clip("blue circle 3 1", "blue circle 1 1"),
                clip("red circle 3 1 ; black star 0 0", "red circle 0 1 ; black star 0 0"),
            ),
            (1, 4 / 5, 3 / 5, 4 / 5, 4 / 5),
        ),
        (
            "shapes-questions",
            "what color is the star, and is there a blue circle?",
            PICTURE,
            "",
            (
                "I can see a red star in the picture. There is a blue circle in the picture.",
                "There is a red star in the picture.",  # a part is left out
                "A blue circle. A red star.",
                "A black star. There are no blue circles.",
                "Nothing.",
            ),
            (1, 1 / 2, 1, 0, 0),
        ),
        *(
            (
                "shapes-criteria",
                "a red star above and left of a blue circle",
                (),
                criterion,
                (
                    picture("red star 3 3 ; blue circle 3 0"),
                    picture("black star 0 0 ; blue circle 2 3"),
                ),
                quality,
            )
            for criterion, quality in (("colors", (1, 1 / 2)), ("layout", (0, 1)))
        ),
    ],
)
def test_quality_of_literal_candidates(
    world: str,
    prompt: str,
    context: tuple[bytes, ...],
    criterion: str,
    candidates: tuple[bytes | str, ...],
    quality: tuple[float, ...],
) -> None:
    group = label(WORLDS[world], "row", prompt, candidates, context, criterion)
    assert group.quality == pytest.approx(quality)
    assert group.comparisons[0] == Comparison(i=0, j=1, p=float(quality[0] > quality[1]))


def test_sizes_balance_and_all_pairs(dataset: Dataset) -> None:
    world, splits = dataset
    for split, groups in splits.items():
        assert len(groups) == SMALL[split]
        skills = Counter(group.tags["skill"] for group in groups)
        assert set(skills) == set(world.prompts.skills)
        assert max(skills.values()) - min(skills.values()) <= 1
        for group in groups:
            pairs = [(c.i, c.j) for c in group.comparisons]
            assert pairs == list(combinations(range(len(group.candidates)), 2))


def test_prompts_come_from_their_split_and_quality_from_what_is_encoded(dataset: Dataset) -> None:
    world, splits = dataset
    for split, groups in splits.items():
        texts = {prompt.text for prompt in world.prompts.split(split)}
        for group in groups[:5]:
            assert group.prompt in texts
            assessed = world.assess(group.prompt, group.candidates, group.context)
            assert group.quality == tuple(each.score for each in assessed[group.criterion])


def test_the_oracle_sees_what_was_drawn(dataset: Dataset) -> None:
    """Read from the encoded candidate, as many claims hold as by the scene that it was made from."""
    world, _ = dataset
    rng = np.random.default_rng(3)
    for skill in world.prompts.skills:
        for prompt in (world.prompts.sample(rng, skill) for _ in range(4)):
            drawn = world.draw(prompt, 3, rng)
            context = [encode_scene(drawn.context)] if drawn.context else []
            assessed = world.assess(prompt.text, [world.encode(each) for each in drawn.candidates], context)
            for criterion, assessments in assessed.items():
                for candidate, assessment in zip(drawn.candidates, assessments, strict=True):
                    assert sum(world.verdicts(prompt, drawn, candidate, criterion)) == assessment.held


def test_groups_spread_over_quality_and_not_by_place_or_size(dataset: Dataset) -> None:
    """A candidate's place, or the length of an answer, does not tell how good it is."""
    world, _ = dataset
    rng = np.random.default_rng(0)
    strict, first, longer, perfect = 0, [], [], []
    for n in range(400):
        prompt = world.prompts.sample(rng, world.prompts.skills[n % len(world.prompts.skills)])
        drawn = world.draw(prompt, 3, rng)
        for criterion in world.criteria:
            held = [world.verdicts(prompt, drawn, each, criterion).count(False) for each in drawn.candidates]
            perfect += [missed == 0 for missed in held]
            for i, j in combinations(range(3), 2):
                if held[i] != held[j]:
                    strict += 1
                    first.append(held[i] < held[j])
                    if isinstance(drawn.candidates[0], str):
                        longer.append(
                            (held[i] < held[j]) == (len(drawn.candidates[i]) > len(drawn.candidates[j]))
                        )
    assert strict / (400 * 3 * len(world.criteria)) > 0.6
    assert 0.45 < np.mean(first) < 0.55
    assert 0.15 < np.mean(perfect) < 0.6
    assert not longer or 0.44 < np.mean(longer) < 0.56


def test_parse_is_the_inverse_for_every_prompt_and_splits_share_no_meaning(dataset: Dataset) -> None:
    prompts = dataset[0].prompts
    assert all(prompts.parse(prompt.text) is prompt for prompt in prompts.all())
    homes = {(prompt.meaning, split) for split in SPLITS for prompt in prompts.split(split)}
    assert len(homes) == len({prompt.meaning for prompt in prompts.all()})


def test_completions_are_what_draws_the_candidates() -> None:
    drawn = {"shapes": Scene.parse, "shapes-clips": lambda text: Clip(**_scenes(text))}
    for name, parse in drawn.items():
        world = WORLDS[name]
        prompt = world.prompts.all()[0]
        for candidate in world.draw(prompt, 4, np.random.default_rng(0)).candidates:
            assert world.note is not None
            assert parse(world.note(candidate)) == candidate


def _scenes(text: str) -> dict[str, Scene]:
    return dict(zip(("start", "end"), map(Scene.parse, text.split(" > ")), strict=True))


def contradicted(groups: list[PreferenceGroup]) -> float:
    """The share of strict comparisons that contradict the quality."""
    strict = [(g.quality or (), c) for g in groups for c in g.comparisons if c.is_strict]
    return sum((quality[c.i] > quality[c.j]) != (c.p == 1.0) for quality, c in strict) / len(strict)


def test_train_is_noisy_and_what_is_held_out_is_clean(dataset: Dataset) -> None:
    splits = dataset[1]
    assert 0.04 < contradicted(splits["train"]) < 0.17
    assert contradicted(splits["validation"]) == contradicted(splits["test"]) == 0.0
    for groups in splits.values():
        for group in groups:
            quality = group.quality or ()
            assert all(c.is_strict == (quality[c.i] != quality[c.j]) for c in group.comparisons)


def test_criteria_share_candidates_and_disagree_on_most_pairs(dataset: Dataset) -> None:
    world, splits = dataset
    if len(world.criteria) == 1:
        assert {group.criterion for group in splits["test"]} == {""}
        return
    relations = Counter[str]()
    for one, other in zip(splits["test"][::2], splits["test"][1::2], strict=True):
        assert (one.prompt, one.candidates) == (other.prompt, other.candidates)
        assert (one.criterion, other.criterion) == world.criteria
        signs = [
            np.sign(one.quality[c.i] - one.quality[c.j]) * np.sign(other.quality[c.i] - other.quality[c.j])
            for c in one.comparisons
        ]
        relation = {(-1,): "disagree", (1,): "agree"}.get(tuple(set(signs)), "mixed")
        assert one.tags["criteria"] == other.tags["criteria"] == relation
        relations[relation] += 1
    assert relations["disagree"] > relations["agree"] > relations["mixed"] == 0


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
