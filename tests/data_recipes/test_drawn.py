from dataclasses import replace

import numpy as np

from data_recipes.drawn import with_noise
from prefrm.records import Comparison, PreferenceGroup


def test_noise_flips_strict_comparisons_only_and_leaves_the_quality() -> None:
    strict = tuple(Comparison.preferred(0, n) for n in range(1, 1000))
    group = PreferenceGroup(
        id="g",
        prompt="p",
        candidates=(b"x",) * 1000,
        comparisons=(*strict, Comparison.tie(1, 2)),
        quality=(0.5,) * 1000,
    )
    noisy = with_noise(group, 0.1, np.random.default_rng(0))
    flipped = sum(c.p == 0.0 for c in noisy.comparisons)
    assert 70 < flipped < 130
    assert noisy.comparisons[-1] == Comparison.tie(1, 2)
    assert replace(noisy, comparisons=group.comparisons) == group
    assert with_noise(group, 0.0, np.random.default_rng(0)) == group
