"""Recipes of the embedded worlds: preference groups labelled by the oracle, noisy on purpose.

Candidates are encoded and then read back by the oracle, so a label is about the picture, the video or the
answer itself and not about what it was made from. Nothing is downloaded; a seed says it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any

import numpy as np

from data_recipes.drawn import check_sizes, draw_splits
from data_recipes.plan import Context, Plan
from data_recipes.recipe import Recipe
from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.definition import Drawn, World, encode_scene
from data_recipes.shapes.prompts import PROMPTS, Prompt
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, PreferenceGroup, comparisons_from_scores

__all__ = ["RECIPE", "WORLD", "ShapesOptions", "label", "recipe_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesOptions:
    """How much to build. Sizes are in groups; each split has every skill equally often."""

    train: Annotated[int, "groups in the train split"] = 1500
    validation: Annotated[int, "groups in the validation split"] = 150
    test: Annotated[int, "groups in the test split"] = 300
    group_size: Annotated[int, "candidates in each group"] = 4
    flip: Annotated[float, "share of strict train comparisons that are flipped"] = 0.1

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.group_size < 2:
            raise ConfigError(f"group_size must be at least 2; received {self.group_size}")


def label(
    world: World,
    id: str,
    prompt: str,
    candidates: tuple[bytes | str, ...],
    context: tuple[bytes, ...] = (),
    criterion: str = "",
) -> PreferenceGroup:
    """A group whose every pair is compared by the oracle's score of what is encoded; equal is a tie."""
    assessed = world.assess(prompt, candidates, context)
    scores = {each: tuple(assessment.score for assessment in all_) for each, all_ in assessed.items()}
    tags = {"skill": world.prompts.parse(prompt).skill}
    if len(world.criteria) > 1:
        tags |= {"criterion": criterion, "criteria": _relation(tuple(scores.values()))}
    return PreferenceGroup(
        id=id,
        prompt=prompt,
        candidates=candidates,
        comparisons=comparisons_from_scores(scores[criterion]),
        context=context,
        criterion=criterion,
        quality=scores[criterion],
        tags=tags,
    )


def _relation(scores: Sequence[tuple[float, ...]]) -> str:
    """ "disagree" if on every pair some criteria prefer one candidate and others the other, "agree" if on
    every pair all prefer the same one, or else "mixed"."""
    signs = [
        {np.sign(each[i] - each[j]) for each in scores} for i, j in combinations(range(len(scores[0])), 2)
    ]
    if all({1, -1} <= sign for sign in signs):
        return "disagree"
    return "agree" if all(len(sign) == 1 and 0 not in sign for sign in signs) else "mixed"


def recipe_of(world: World, options_type: type[ShapesOptions] = ShapesOptions) -> Recipe:
    """The recipe of a world: skill after skill, each through all its prompts of the split in shuffled order,
    again and again. Groups that differ in their criterion alone follow each other."""

    def plan(options: ShapesOptions, context: Context) -> Plan:
        skills, criteria = world.prompts.skills, world.criteria
        decks = {
            (split, skill): world.prompts.deck(split, skill, context.seed)
            for split in SPLITS
            for skill in skills
        }

        def draw(split: str, n: int, rng: np.random.Generator) -> PreferenceGroup:
            number, criterion = divmod(n, len(criteria))
            prompts = decks[split, skills[number % len(skills)]]
            prompt = prompts[number // len(skills) % len(prompts)]
            drawn = world.draw(prompt, options.group_size, rng)
            group = label(
                world,
                f"{world.name}-{split}-{n:06d}",
                prompt.text,
                tuple(world.encode(candidate) for candidate in drawn.candidates),
                () if drawn.context is None else (encode_scene(drawn.context),),
                criteria[criterion],
            )
            if world.note is None:
                return group
            return replace(group, completions=tuple(world.note(candidate) for candidate in drawn.candidates))

        return draw_splits(options, context, draw, alike=len(criteria))

    return Recipe(name=world.name, summary=world.summary, options_type=options_type, plan=plan)


def _draw(prompt: Prompt, k: int, rng: np.random.Generator) -> Drawn:
    return Drawn(candidates=make_candidates(prompt, k, rng))


def _claims(prompt: Prompt, criterion: str, seen: Sequence[Any]) -> Sequence[Any]:
    return prompt.claims


WORLD = World(
    name="shapes",
    summary="the embedded world of colored shapes: six skills, oracle labels, nothing to download",
    prompts=PROMPTS,
    draw=_draw,
    claims=_claims,
)
RECIPE = recipe_of(WORLD)
