"""The recipe `shapes`: preference groups of the embedded world, labelled by the oracle, noisy on purpose.

Candidates are rendered and then read back by the oracle, so a label is about the picture and not about
the scene that it was drawn from. Nothing is downloaded; a seed says it all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from data_recipes.recipe import Plan, Recipe, Split
from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.oracle import assess
from data_recipes.shapes.prompts import SKILLS, Prompt, split_prompts
from data_recipes.shapes.render import render
from prefrm import media
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, PreferenceGroup, comparisons_from_scores

__all__ = ["NOISY_SPLITS", "RECIPE", "ShapesOptions", "label", "with_noise"]

NOISY_SPLITS = ("train",)
"""The splits whose labels are flipped. The small held-out ones stay as the oracle says, as if several
annotators had agreed: a temperature fitted on flipped labels would be fitted to the flips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesOptions:
    """How much to build. Sizes are in groups; each split has every skill equally often."""

    train: Annotated[int, "groups in the train split"] = 1500
    validation: Annotated[int, "groups in the validation split"] = 150
    test: Annotated[int, "groups in the test split"] = 300
    group_size: Annotated[int, "candidates in each group"] = 4
    flip: Annotated[float, "share of strict train comparisons that are flipped"] = 0.1

    def __post_init__(self) -> None:
        for name in SPLITS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 group; received {getattr(self, name)}")
        if self.group_size < 2:
            raise ConfigError(f"group_size must be at least 2; received {self.group_size}")
        if not 0.0 <= self.flip < 0.5:
            raise ConfigError(f"flip must be in [0, 0.5): at 0.5 labels say nothing; received {self.flip}")


def label(id: str, prompt: Prompt, images: tuple[bytes, ...]) -> PreferenceGroup:
    """A group whose every pair is compared by the oracle's score of the encoded images; equal is a tie."""
    scores = tuple(assess(prompt, media.decode(image)).score for image in images)
    return PreferenceGroup(
        id=id,
        prompt=prompt.text,
        images=images,
        comparisons=comparisons_from_scores(scores),
        quality=scores,
        tags={"skill": prompt.skill},
    )


def with_noise(group: PreferenceGroup, flip: float, rng: np.random.Generator) -> PreferenceGroup:
    """The group with each strict comparison flipped with probability `flip`; `quality` stays true."""
    return replace(
        group,
        comparisons=tuple(
            c.flipped() if c.is_strict and rng.random() < flip else c for c in group.comparisons
        ),
    )


def _plan(options: ShapesOptions, seed: int) -> Plan:
    return Plan(
        splits={
            split: Split(groups=_groups(split, options, seed), total=getattr(options, split))
            for split in SPLITS
        }
    )


def _groups(split: str, options: ShapesOptions, seed: int) -> Iterator[PreferenceGroup]:
    """Skill after skill, each through all its prompts of the split in shuffled order, again and again.

    A group depends on the seed, the split and its number alone: a smaller build is a prefix of a larger.
    """
    key = SPLITS.index(split)
    decks = {skill: [p for p in split_prompts(split) if p.skill == skill] for skill in SKILLS}
    for deck in decks.values():
        np.random.default_rng([seed, key]).shuffle(deck)
    for n in range(getattr(options, split)):
        rng = np.random.default_rng([seed, key, n])
        deck = decks[SKILLS[n % len(SKILLS)]]
        prompt = deck[n // len(SKILLS) % len(deck)]
        scenes = make_candidates(prompt, options.group_size, rng)
        images = tuple(media.encode_png(render(scene)) for scene in scenes)
        group = replace(
            label(f"shapes-{split}-{n:06d}", prompt, images),
            texts=tuple(scene.program() for scene in scenes),
        )
        yield with_noise(group, options.flip, rng) if split in NOISY_SPLITS else group


RECIPE = Recipe(
    name="shapes",
    summary="the embedded world of colored shapes: six skills, oracle labels, nothing to download",
    options_type=ShapesOptions,
    plan=_plan,
)
