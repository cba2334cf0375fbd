"""The recipe `shapes`: preference groups of the embedded world, labelled by the oracle, noisy on purpose.

Candidates are rendered and then read back by the oracle, so a label is about the picture and not about
the scene that it was drawn from. Nothing is downloaded; a seed says it all.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from data_recipes.drawn import check_sizes, draw_splits
from data_recipes.plan import Context, Plan
from data_recipes.recipe import Recipe
from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.oracle import assess
from data_recipes.shapes.prompts import SKILLS, Prompt, deck
from data_recipes.shapes.render import render
from prefrm import media
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, PreferenceGroup, comparisons_from_scores

__all__ = ["RECIPE", "ShapesOptions", "label"]


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


def label(id: str, prompt: Prompt, images: tuple[bytes, ...]) -> PreferenceGroup:
    """A group whose every pair is compared by the oracle's score of the encoded images; equal is a tie."""
    scores = tuple(assess(prompt, media.decode(image)).score for image in images)
    return PreferenceGroup(
        id=id,
        prompt=prompt.text,
        candidates=images,
        comparisons=comparisons_from_scores(scores),
        quality=scores,
        tags={"skill": prompt.skill},
    )


def _plan(options: ShapesOptions, context: Context) -> Plan:
    """Skill after skill, each through all its prompts of the split in shuffled order, again and again."""
    decks = {(split, skill): deck(split, skill, context.seed) for split in SPLITS for skill in SKILLS}

    def draw(split: str, n: int, rng: np.random.Generator) -> PreferenceGroup:
        prompts = decks[split, SKILLS[n % len(SKILLS)]]
        prompt = prompts[n // len(SKILLS) % len(prompts)]
        scenes = make_candidates(prompt, options.group_size, rng)
        images = tuple(media.encode_png(render(scene)) for scene in scenes)
        return replace(
            label(f"shapes-{split}-{n:06d}", prompt, images),
            completions=tuple(scene.program() for scene in scenes),
        )

    return draw_splits(options, context, draw)


RECIPE = Recipe(
    name="shapes",
    summary="the embedded world of colored shapes: six skills, oracle labels, nothing to download",
    options_type=ShapesOptions,
    plan=_plan,
)
