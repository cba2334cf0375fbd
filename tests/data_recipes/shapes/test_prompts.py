from collections import Counter

import numpy as np
import pytest

from data_recipes.shapes.claims import Before, Claim, Count, Exists, Noun, Only, Within, seen_in
from data_recipes.shapes.prompts import (
    SKILLS,
    Prompt,
    PromptError,
    all_prompts,
    caption,
    parse_prompt,
    sample_prompt,
    solve,
    split_prompts,
)
from data_recipes.shapes.scene import COLORS, SHAPES, Scene
from prefrm.records import SPLITS

CIRCLE, SQUARE = Noun(kind="circle"), Noun(kind="square")
RED_CIRCLE, BLUE_SQUARE = Noun(kind="circle", color="red"), Noun(kind="square", color="blue")


@pytest.mark.parametrize(
    ("text", "skill", "claims"),
    [
        ("a single circle", "single_object", [Exists(noun=CIRCLE), Only(n=1)]),
        (
            "a single circle at the top right",
            "single_object",
            [
                Exists(noun=CIRCLE),
                Within(noun=CIRCLE, axis="y", low=True),
                Within(noun=CIRCLE, axis="x", low=False),
                Only(n=1),
            ],
        ),
        (
            "a red circle and a square",
            "two_objects",
            [Exists(noun=CIRCLE), Exists(noun=RED_CIRCLE), Exists(noun=SQUARE), Only(n=2)],
        ),
        (
            "three red circles",
            "counting",
            [Exists(noun=CIRCLE), Count(noun=CIRCLE, n=3), Count(noun=RED_CIRCLE, n=3), Only(n=3)],
        ),
        (
            "a circle and four squares",
            "counting",
            [Count(noun=CIRCLE, n=1), Count(noun=SQUARE, n=4), Only(n=5)],
        ),
        (
            "a red circle at the bottom",
            "colors",
            [
                Exists(noun=CIRCLE),
                Exists(noun=RED_CIRCLE),
                Within(noun=RED_CIRCLE, axis="y", low=False),
                Only(n=1),
            ],
        ),
        (
            "a red circle right of a square",
            "position",
            [
                Exists(noun=RED_CIRCLE),
                Exists(noun=SQUARE),
                Before(first=SQUARE, second=RED_CIRCLE, axis="x"),
                Only(n=2),
            ],
        ),
        (
            "a circle above a square",
            "position",
            [
                Exists(noun=CIRCLE),
                Exists(noun=SQUARE),
                Before(first=CIRCLE, second=SQUARE, axis="y"),
                Only(n=2),
            ],
        ),
        (
            "a red circle and a blue square",
            "color_attribution",
            [
                Exists(noun=CIRCLE),
                Exists(noun=RED_CIRCLE),
                Exists(noun=SQUARE),
                Exists(noun=BLUE_SQUARE),
                Only(n=2),
            ],
        ),
    ],
)
def test_a_prompt_claims_what_its_text_says(text: str, skill: str, claims: list[Claim]) -> None:
    prompt = parse_prompt(text)
    assert (prompt.skill, list(prompt.claims)) == (skill, claims)


def test_parse_is_the_inverse_for_every_prompt() -> None:
    prompts = all_prompts()
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 1200
    for prompt in prompts:
        assert parse_prompt(prompt.text) is prompt
        assert len(prompt.text.split()) <= 9
        assert 2 <= len(prompt.claims) <= 5


def test_parse_forgives_case_spaces_and_a_period() -> None:
    assert parse_prompt("  A Red  circle.").text == "a red circle"


@pytest.mark.parametrize("text", ["", "a red dog", "a red circle " * 1000, "\0", "one two three"])
def test_a_text_of_another_world_is_refused_and_the_nearest_prompt_named(text: str) -> None:
    with pytest.raises(PromptError, match="the nearest one is '") as caught:
        parse_prompt(text)
    assert len(str(caught.value)) < 300


def test_every_prompt_has_scenes_in_which_every_claim_holds() -> None:
    rng = np.random.default_rng(0)
    for prompt in all_prompts():
        seen = seen_in(solve(prompt, rng))
        assert all(claim.holds(seen) for claim in prompt.claims), prompt.text


def test_a_solution_draws_things_in_the_order_of_the_text_and_varies_what_is_open() -> None:
    prompt = parse_prompt("a red circle left of a square")
    rng = np.random.default_rng(0)
    scenes = [solve(prompt, rng) for _ in range(200)]
    assert {tuple(s.kind for s in scene.shapes) for scene in scenes} == {("circle", "square")}
    assert {scene.shapes[0].color for scene in scenes} == {"red"}
    assert {scene.shapes[1].color for scene in scenes} == set(COLORS)
    assert len({scene.program() for scene in scenes}) > 150


def test_solutions_and_samples_are_reproducible() -> None:
    def draw(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [solve(sample_prompt(rng, skill), rng).program() for skill in SKILLS]

    assert draw(3) == draw(3) != draw(4)


def test_an_unknown_skill_or_split_is_refused() -> None:
    with pytest.raises(PromptError, match="unknown skill 'juggling'; it must be one of single_object"):
        sample_prompt(np.random.default_rng(0), "juggling")
    with pytest.raises(PromptError, match="unknown split 'dev'; it must be train, validation or test"):
        split_prompts("dev")


def test_splits_share_no_text_and_no_meaning_and_cover_the_world() -> None:
    splits = {split: split_prompts(split) for split in SPLITS}
    assert sum(map(len, splits.values())) == len(all_prompts())
    homes: dict[str, set[str]] = {}
    for split, prompts in splits.items():
        for prompt in prompts:
            homes.setdefault(prompt.meaning, set()).add(split)
            homes.setdefault(prompt.text, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())


def test_a_prompt_turned_around_has_the_same_meaning() -> None:
    def meaning(text: str) -> str:
        return parse_prompt(text).meaning

    assert meaning("a circle left of a square") == meaning("a square right of a circle")
    assert meaning("a red circle and a blue square") == meaning("a blue square and a red circle")
    assert meaning("a circle left of a square") != meaning("a square left of a circle")
    assert meaning("a red circle and a blue square") != meaning("a blue circle and a red square")


@pytest.mark.parametrize(("split", "low", "high"), [("train", 0.6, 0.75), ("test", 0.18, 0.23)])
def test_every_skill_is_in_every_split_in_proportion(split: str, low: float, high: float) -> None:
    counts = Counter(prompt.skill for prompt in split_prompts(split))
    for skill in SKILLS:
        assert low < counts[skill] / len(all_prompts(skill)) < high


def test_every_word_of_a_held_out_prompt_is_in_train() -> None:
    def words(prompts: tuple[Prompt, ...]) -> set[str]:
        return {word for prompt in prompts for word in prompt.text.split()}

    assert words(split_prompts("test")) | words(split_prompts("validation")) <= words(split_prompts("train"))


def test_a_caption_lists_everything_from_the_top_left() -> None:
    scene = Scene.parse("blue square 3 2 ; red circle 1 0 ; black star 0 2")
    assert caption(scene) == "red circle top left ; black star bottom left ; blue square bottom right"
    assert set(caption(scene).split()) <= {*COLORS, *SHAPES, ";", "top", "bottom", "left", "right"}
