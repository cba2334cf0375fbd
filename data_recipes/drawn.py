"""Sizes of splits and label noise, for recipes that draw their groups from a seed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from data_recipes.plan import Context, Plan, Split
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, PreferenceGroup

__all__ = ["NOISY_SPLITS", "Sizes", "check_sizes", "draw_splits", "with_noise"]

NOISY_SPLITS = ("train",)
"""The splits whose labels are flipped. The small held-out ones stay as they are, as if several
annotators had agreed: a temperature fitted on flipped labels would be fitted to the flips."""


class Sizes(Protocol):
    """The options of such a recipe: groups in each split, and the share of strict train comparisons that
    are flipped."""

    @property
    def train(self) -> int: ...
    @property
    def validation(self) -> int: ...
    @property
    def test(self) -> int: ...
    @property
    def flip(self) -> float: ...


def check_sizes(options: Sizes) -> None:
    """Raises `ConfigError` where a split would be empty or the noise would leave nothing to learn."""
    for name in SPLITS:
        if getattr(options, name) < 1:
            raise ConfigError(f"{name} must be at least 1 group; received {getattr(options, name)}")
    if not 0.0 <= options.flip < 0.5:
        raise ConfigError(
            f"flip must be in [0, 0.5): at 0.5 labels carry no information; received {options.flip}"
        )


def draw_splits(
    options: Sizes,
    context: Context,
    draw: Callable[[str, int, np.random.Generator], PreferenceGroup],
    *,
    alike: int = 1,
) -> Plan:
    """Every split, group by group: `draw` takes the split, the group's number and a generator of its own.

    `alike` groups in a row have generators in the same state, to draw the same candidates for each.

    A group depends on the seed, the split and its number alone: a smaller build is a prefix of a larger.

    Raises:
        ConfigError: the dataset is to be apart from another: there is nothing that could be left out.
    """
    if context.apart_from:
        raise ConfigError("apart_from is for recipes that read a source; this one generates its groups")

    def groups(split: str) -> Iterator[PreferenceGroup]:
        for n in range(getattr(options, split)):
            rng = np.random.default_rng([context.seed, SPLITS.index(split), n // alike])
            group = draw(split, n, rng)
            yield with_noise(group, options.flip, rng) if split in NOISY_SPLITS else group

    return Plan(
        splits={split: Split(groups=groups(split), total=getattr(options, split)) for split in SPLITS}
    )


def with_noise(group: PreferenceGroup, flip: float, rng: np.random.Generator) -> PreferenceGroup:
    """The group with each strict comparison flipped with probability `flip`; `quality` stays true."""
    return replace(
        group,
        comparisons=tuple(
            c.flipped() if c.is_strict and rng.random() < flip else c for c in group.comparisons
        ),
    )
