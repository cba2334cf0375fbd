"""The world's prompts and oracle, by the names under which packages offer them."""

import io
from importlib.metadata import entry_points

import pytest

from data_recipes.shapes import world
from data_recipes.shapes.prompts import SKILLS, PromptError, parse_prompt
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import Scene
from prefrm.errors import MediaError

SPLITS = ("train", "validation", "test")
ALL = 10_000
"""More prompts than any split has."""


def test_it_is_found_by_its_name():
    (entry,) = entry_points(group="prefrm.worlds", name="shapes")
    assert entry.load() is world


def test_splits_share_no_meaning():
    meanings = [{parse_prompt(text).meaning for text in world.prompts(split, ALL, 0)} for split in SPLITS]
    assert sum(map(len, meanings)) == len(set().union(*meanings))


def test_every_skill_comes_equally_often_and_in_turn():
    prompts = world.prompts("test", 4 * len(SKILLS), 0)
    assert [parse_prompt(text).skill for text in prompts] == list(SKILLS) * 4


def test_prompts_are_those_of_the_seed_and_fewer_are_the_first_ones():
    prompts = world.prompts("validation", 60, 3)
    assert world.prompts("validation", 30, 3) == prompts[:30]
    assert world.prompts("validation", 60, 4) != prompts


def test_a_deck_is_dealt_again_when_it_is_used_up():
    singles = world.prompts("test", ALL, 0)[:: len(SKILLS)]
    size = len(set(singles))
    assert size < len(singles)
    assert singles[:size] == singles[size : 2 * size]


@pytest.mark.parametrize(
    ("program", "share"),
    [("red circle 0 0 ; blue square 2 2", 1.0), ("red circle 0 0 ; red square 2 2", 0.8)],
)
def test_oracle_is_the_share_of_claims_that_hold(program, share):
    image = render(Scene.parse(program))
    file = io.BytesIO()
    image.save(file, "PNG")
    for form in (image, file.getvalue()):
        assert world.oracle("a red circle and a blue square", form) == pytest.approx(share)


def test_what_is_not_of_the_world_is_refused():
    image = render(Scene.parse("red circle 0 0"))
    with pytest.raises(PromptError, match="'a pink circle' is not a prompt of the shapes world"):
        world.oracle("a pink circle", image)
    with pytest.raises(MediaError):
        world.oracle("a red circle", b"no image")
    with pytest.raises(PromptError, match="unknown split 'dev'"):
        world.prompts("dev", 1, 0)
