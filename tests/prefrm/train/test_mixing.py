from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations, islice
from typing import Any

import numpy as np
import pytest

from prefrm.records import Comparison, PreferenceGroup
from prefrm.train.mixing import Mixture, Shares

PAIRS = tuple(Comparison.preferred(i, j, weight=1.0 + i) for i, j in combinations(range(5), 2))


class Letters:
    """A dataset whose groups are called `name` and a number; each has all ten comparisons of five images."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    def __len__(self) -> int:
        return self._size

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        yield from np.random.default_rng(seed).permutation(self._size)[skip:].tolist()

    def fetch(self, entry: int) -> PreferenceGroup:
        return PreferenceGroup(
            id=f"{self._name}{entry}",
            prompt="p",
            candidates=tuple(b"abcde"[n : n + 1] for n in range(5)),
            comparisons=PAIRS,
        )


def drawn(mixture: Mixture, size: int, steps: int, start: int = 0) -> list[list[str]]:
    """The ids of the groups of each step."""
    return [[mixture.fetch(draw).id for draw in step] for step in islice(mixture.steps(size, start), steps)]


def two(seed: int = 3, weights: tuple[float, float] = (1.0, 3.0)) -> Mixture:
    return Mixture([Letters("a", 7), Letters("b", 50)], seed=seed, weights=weights)


@pytest.mark.parametrize("size", [3, 4, 10, 25])
def test_every_step_is_full_and_what_an_epoch_leaves_over_begins_the_next_step(size: int) -> None:
    steps = drawn(Mixture([Letters("a", 10)], seed=0), size=size, steps=20)
    assert {len(step) for step in steps} == {size}
    ids = [*chain(*steps)]
    epochs = [ids[n : n + 10] for n in range(0, len(ids) - 9, 10)]
    assert all(sorted(epoch) == [f"a{n}" for n in range(10)] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_datasets_are_drawn_in_proportion_to_their_weights() -> None:
    """4000 draws with probability 1/4: the standard deviation of the share is 0.007."""
    letters = [id[0] for step in drawn(two(), size=40, steps=100) for id in step]
    assert len(letters) == 4000
    assert letters.count("a") / 4000 == pytest.approx(0.25, abs=0.03)
    # What counts is their ratio.
    assert drawn(two(), 8, 5) == drawn(two(weights=(2.0, 6.0)), 8, 5)


def test_each_dataset_has_epochs_of_its_own_and_each_is_shuffled_anew() -> None:
    a = [id for step in drawn(two(), size=16, steps=10) for id in step if id[0] == "a"]
    epochs = [a[n : n + 7] for n in range(0, len(a) - 6, 7)]
    assert len(epochs) > 2
    assert all(Counter(epoch) == Counter(f"a{n}" for n in range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("mixture", [two, lambda: Mixture([Letters("a", 23)], seed=1)], ids=["two", "one"])
def test_steps_can_be_entered_anywhere(mixture: Any) -> None:
    whole = drawn(mixture(), size=6, steps=20)
    for start in (1, 4, 13):
        assert drawn(mixture(), size=6, steps=20 - start, start=start) == whole[start:]
    assert drawn(mixture(), size=6, steps=20) == whole


def test_another_seed_is_another_order() -> None:
    assert drawn(two(seed=3), 8, 2) != drawn(two(seed=4), 8, 2)


@pytest.mark.parametrize("pairs", [None, 3])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_a_step_is_the_same_however_it_is_shared(
    processes: int, accumulation: int, pairs: int | None
) -> None:
    """Steps of 8 of 20 groups: the third begins in one epoch and ends in the next."""
    mixture = Mixture([Letters("a", 20)], seed=0)
    batch_size = 8 // (processes * accumulation)
    shares = []
    for process in range(processes):
        mine = Shares(
            mixture,
            batch_size=batch_size,
            accumulation=accumulation,
            pairs_per_group=pairs,
            processes=processes,
            process=process,
        )
        mine.start = 1
        shares.append([mine[draws] for draws in islice(mine.draws(), 3 * accumulation)])
        assert {len(run) for run in shares[-1]} == {batch_size}
    for step, draws in enumerate(islice(mixture.steps(8, start=1), 3)):
        runs = slice(step * accumulation, (step + 1) * accumulation)
        seen = [group for share in shares for run in share[runs] for group in run]
        expected = [mixture.fetch(draw, pairs) for draw in draws]
        assert sorted(seen, key=repr) == sorted(expected, key=repr)


def samples(seed: int, steps: int, pairs: int = 3, size: int = 4) -> list[list[tuple[Comparison, ...]]]:
    """The comparisons of each group of each step: of one group, again and again."""
    mixture = Mixture([Letters("a", 1)], seed=seed)
    return [
        [mixture.fetch(draw, pairs).comparisons for draw in step]
        for step in islice(mixture.steps(size), steps)
    ]


def test_a_group_is_sampled_anew_in_every_step_and_place() -> None:
    """120 samples of three of ten comparisons are all possible, and each comparison is equally likely."""
    steps = samples(seed=0, steps=250)
    taken = [sample for step in steps for sample in step]
    assert all(len(set(sample)) == 3 and list(sample) == sorted(sample, key=PAIRS.index) for sample in taken)
    assert len(set(taken)) == 120
    counts = Counter(comparison for sample in taken for comparison in sample)
    # 300 expected of 1000 samples, with a standard deviation of 14.5.
    assert all(abs(counts[comparison] - 300) < 75 for comparison in PAIRS)
    assert steps != samples(seed=1, steps=250)


@pytest.mark.parametrize("pairs", [10, 11])
def test_a_group_with_few_comparisons_is_read_whole(pairs: int) -> None:
    assert samples(seed=0, steps=1, pairs=pairs, size=1) == [[PAIRS]]


def test_epochs_are_of_the_first_dataset() -> None:
    assert Mixture([Letters("a", 20)], seed=0).epochs(5, size=8) == 2.0
    assert two().epochs(7, size=8) == 7 * 8 / 4 / 7


@pytest.mark.parametrize("names", ["a", "ab"])
def test_an_epoch_of_one_seed_is_no_epoch_of_another(names: str) -> None:
    """Were they shuffled by the sum, the second epoch of seed 0 would be the first of seed 1."""
    epochs = set()
    for seed in range(4):
        mixture = Mixture([Letters(name, 20) for name in names], seed=seed)
        a = [id for step in drawn(mixture, 10, 4 * len(names) * 3) for id in step if id[0] == "a"]
        epochs |= {tuple(a[n : n + 20]) for n in (0, 20, 40)}
    assert len(epochs) == 4 * 3
