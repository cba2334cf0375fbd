from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from prefrm.train.mixing import Mixture, Shares


class Letters:
    """A dataset whose examples are `name` and a number."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    def __len__(self) -> int:
        return self._size

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        yield from np.random.default_rng(seed).permutation(self._size)[skip:].tolist()

    def fetch(self, entries: Sequence[int]) -> list[Any]:
        return [f"{self._name}{entry}" for entry in entries]


def examples(mixture: Mixture, size: int, steps: int, start: int = 0) -> list[list[Any]]:
    return [mixture.fetch(draws) for draws in islice(mixture.steps(size, start), steps)]


def two(seed: int = 3, weights: tuple[float, float] = (1.0, 3.0)) -> Mixture:
    return Mixture([Letters("a", 7), Letters("b", 50)], seed=seed, weights=weights)


@pytest.mark.parametrize("size", [3, 4, 10, 25])
def test_every_step_is_full_and_what_an_epoch_leaves_over_begins_the_next_step(size: int) -> None:
    steps = examples(Mixture([Letters("a", 10)], seed=0), size=size, steps=20)
    assert {len(step) for step in steps} == {size}
    drawn = [*chain(*steps)]
    epochs = [drawn[n : n + 10] for n in range(0, len(drawn) - 9, 10)]
    assert all(sorted(epoch) == [f"a{n}" for n in range(10)] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_datasets_are_drawn_in_proportion_to_their_weights() -> None:
    """4000 draws with probability 1/4: the standard deviation of the share is 0.007."""
    drawn = [example[0] for step in examples(two(), size=40, steps=100) for example in step]
    assert len(drawn) == 4000
    assert drawn.count("a") / 4000 == pytest.approx(0.25, abs=0.03)
    # What counts is their ratio.
    assert examples(two(), 8, 5) == examples(two(weights=(2.0, 6.0)), 8, 5)


def test_each_dataset_has_epochs_of_its_own_and_each_is_shuffled_anew() -> None:
    drawn = [example for step in examples(two(), size=16, steps=10) for example in step]
    a = [example for example in drawn if example[0] == "a"]
    epochs = [a[n : n + 7] for n in range(0, len(a) - 6, 7)]
    assert len(epochs) > 2
    assert all(Counter(epoch) == Counter(f"a{n}" for n in range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("mixture", [two, lambda: Mixture([Letters("a", 23)], seed=1)], ids=["two", "one"])
def test_steps_can_be_entered_anywhere(mixture: Any) -> None:
    whole = examples(mixture(), size=6, steps=20)
    for start in (1, 4, 13):
        assert examples(mixture(), size=6, steps=20 - start, start=start) == whole[start:]
    assert examples(mixture(), size=6, steps=20) == whole


def test_another_seed_is_another_order() -> None:
    assert examples(two(seed=3), 8, 2) != examples(two(seed=4), 8, 2)


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_a_step_is_the_same_however_it_is_shared(processes: int, accumulation: int) -> None:
    """Steps of 8 of 20 examples: the third begins in one epoch and ends in the next."""
    batch_size = 8 // (processes * accumulation)
    shares = []
    for process in range(processes):
        mine = Shares(
            Mixture([Letters("a", 20)], seed=0),
            batch_size=batch_size,
            accumulation=accumulation,
            processes=processes,
            process=process,
        )
        mine.start = 1
        shares.append([mine[draws] for draws in islice(mine.draws(), 3 * accumulation)])
        assert {len(run) for run in shares[-1]} == {batch_size}
    for step in range(3):
        runs = slice(step * accumulation, (step + 1) * accumulation)
        seen = [example for share in shares for run in share[runs] for example in run]
        (expected,) = examples(Mixture([Letters("a", 20)], seed=0), 8, 1, start=1 + step)
        assert sorted(seen) == sorted(expected)


def test_epochs_are_of_the_first_dataset() -> None:
    assert Mixture([Letters("a", 20)], seed=0).epochs(5, size=8) == 2.0
    assert two().epochs(7, size=8) == 7 * 8 / 4 / 7


@pytest.mark.parametrize("names", ["a", "ab"])
def test_an_epoch_of_one_seed_is_no_epoch_of_another(names: str) -> None:
    """Were they shuffled by the sum, the second epoch of seed 0 would be the first of seed 1."""
    epochs = set()
    for seed in range(4):
        mixture = Mixture([Letters(name, 20) for name in names], seed=seed)
        drawn = [e for step in examples(mixture, 10, 4 * len(names) * 3) for e in step if e[0] == "a"]
        epochs |= {tuple(drawn[n : n + 20]) for n in (0, 20, 40)}
    assert len(epochs) == 4 * 3
