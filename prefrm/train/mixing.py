"""Which groups each optimizer step reads, which of their comparisons, and which groups each process reads.

All of it depends on the seed, the datasets and the number of groups in a step, and on nothing else: not on
how many processes, workers or forward passes share the step, nor on where a run was interrupted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from prefrm.records import PreferenceGroup

__all__ = ["Draw", "Groups", "Mixture", "Shares"]


class Groups(Protocol):
    """A dataset of preference groups that can be read in a shuffled order, again and again."""

    def __len__(self) -> int:
        """Number of groups."""

    def order(self, seed: int, skip: int = 0) -> Iterator[Any]:
        """An entry for every group once, shuffled by `seed`, from the place `skip` on."""

    def fetch(self, entry: Any) -> PreferenceGroup:
        """The group that an entry of `order` stands for."""


class Draw(NamedTuple):
    """One group of one step.

    Attributes:
        dataset: its number.
        entry: what the dataset's `fetch` takes.
        step: counted from 0.
        place: of the group in the step, counted from 0.
    """

    dataset: int
    entry: Any
    step: int
    place: int


class Mixture:
    """The groups of each step, in epochs with a shuffle each.

    Every step is full: what an epoch leaves over begins the step that the next epoch completes, so no group
    is dropped and no step is short. Each group of a step is of a dataset drawn with probability proportional
    to the weights, and each dataset has its own epochs.

    Args:
        datasets: at least one, none of them empty.
        weights: > 0, one for each dataset; None counts them alike.
        seed: of all that is drawn.
    """

    def __init__(
        self, datasets: Sequence[Groups], *, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self._datasets = datasets
        self._seed = seed
        self._shares = np.array(weights or [1.0] * len(datasets)) / sum(weights or [len(datasets)])

    def steps(self, size: int, start: int = 0) -> Iterator[list[Draw]]:
        """The draws of each step, `size` groups a step, without an end; from step `start` on."""
        drawn = np.zeros(len(self._datasets), dtype=np.int64)
        for step in range(start):
            drawn += np.bincount(self._chosen(step, size), minlength=len(drawn))
        orders = [
            self._endless(dataset, int(done)) for dataset, done in zip(self._datasets, drawn, strict=True)
        ]
        for step in count(start):
            chosen = self._chosen(step, size).tolist()
            yield [Draw(n, next(orders[n]), step, place) for place, n in enumerate(chosen)]

    def _chosen(self, step: int, size: int) -> npt.NDArray[np.int64]:
        """The dataset of each group of a step; every step has its own generator."""
        generator = np.random.default_rng([self._seed, step])
        return generator.choice(len(self._shares), size=size, p=self._shares)

    def _endless(self, dataset: Groups, drawn: int) -> Iterator[Any]:
        first, done = divmod(drawn, len(dataset))
        for epoch in count(first):
            yield from dataset.order(self._seed_of(epoch), skip=done)
            done = 0

    def _seed_of(self, epoch: int) -> int:
        """Not the sum of the two, which would make an epoch of one seed another epoch of the next."""
        return int(np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)[0])

    def epochs(self, step: int, size: int) -> float:
        """How often the first dataset was seen in `step` steps; of several datasets, on average."""
        return float(step * size * self._shares[0] / len(self._datasets[0]))

    def fetch(self, draw: Draw, pairs: int | None = None) -> PreferenceGroup:
        """The group of a draw with its comparisons, or with `pairs` of them, sampled without replacement."""
        group = self._datasets[draw.dataset].fetch(draw.entry)
        if pairs is None or len(group.comparisons) <= pairs:
            return group
        key = np.random.SeedSequence([self._seed, draw.step], spawn_key=(draw.place,))
        kept = np.random.default_rng(key).choice(len(group.comparisons), size=pairs, replace=False)
        return replace(group, comparisons=tuple(group.comparisons[n] for n in sorted(kept)))


class Shares(Dataset[list[PreferenceGroup]]):
    """What one process reads: a list of groups for each forward pass, `accumulation` of them a step.

    A step's groups are dealt out in runs of `batch_size`, to each process in turn.

    Args:
        batch_size, accumulation, pairs_per_group: as in `OptimConfig`.

    Attributes:
        start: how many steps are over.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        batch_size: int,
        accumulation: int,
        pairs_per_group: int | None = None,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self.start = 0
        self._mixture = mixture
        self._batch_size = batch_size
        self._pairs = pairs_per_group
        self._size = batch_size * accumulation * processes
        self._offsets = range(process * batch_size, self._size, processes * batch_size)

    def draws(self) -> Iterator[list[Draw]]:
        """The draws of each forward pass, without an end, from step `start` on."""
        for draws in self._mixture.steps(self._size, self.start):
            for offset in self._offsets:
                yield draws[offset : offset + self._batch_size]

    def __getitem__(self, draws: Sequence[Draw]) -> list[PreferenceGroup]:
        return [self._mixture.fetch(draw, self._pairs) for draw in draws]

    def epochs(self, step: int) -> float:
        """How often the first dataset was seen in `step` steps."""
        return self._mixture.epochs(step, self._size)
