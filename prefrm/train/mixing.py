"""Which examples each optimizer step learns from, and which of them each process reads.

The order depends on the seed, the datasets and the number of examples in a step, and on nothing else:
not on how many processes or forward passes share the step, nor on where a run was interrupted.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from prefrm.train.examples import Example

__all__ = ["Examples", "Mixture", "Shares"]

Draw = tuple[int, Any]
"""The number of a dataset and what its `fetch` takes."""


class Examples(Protocol):
    """A dataset that can be read in a shuffled order, again and again."""

    def __len__(self) -> int:
        """How many examples there are."""

    def order(self, seed: int, skip: int = 0) -> Iterator[Any]:
        """Something for every example once, shuffled by `seed`, from the place `skip` on."""

    def fetch(self, entries: Sequence[Any]) -> list[Example]:
        """The examples that entries of `order` stand for."""


class Mixture:
    """The examples of each step, in epochs that are shuffled anew: each with a seed of its own.

    Every step is full: what an epoch leaves over begins the step that the next epoch completes, so no example
    is dropped and none has a step to itself. Each example of a step is of a dataset drawn with probability
    proportional to the weights, and each dataset has epochs of its own.

    Args:
        datasets: at least one, none of them empty.
        weights: > 0, one for each dataset; None counts them alike.
        seed: of all that is drawn.
    """

    def __init__(
        self, datasets: Sequence[Examples], *, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self._datasets = datasets
        self._seed = seed
        self._shares = np.array(weights or [1.0] * len(datasets)) / sum(weights or [len(datasets)])

    def steps(self, size: int, start: int = 0) -> Iterator[list[Draw]]:
        """What each step learns from, `size` examples a step, without an end; from step `start` on."""
        drawn = np.zeros(len(self._datasets), dtype=np.int64)
        for step in range(start):
            drawn += np.bincount(self._chosen(step, size), minlength=len(drawn))
        orders = [
            self._endless(dataset, int(done)) for dataset, done in zip(self._datasets, drawn, strict=True)
        ]
        for step in count(start):
            yield [(number, next(orders[number])) for number in self._chosen(step, size).tolist()]

    def _chosen(self, step: int, size: int) -> npt.NDArray[np.int64]:
        """Which dataset each example of a step is of; every step has a generator of its own."""
        generator = np.random.default_rng([self._seed, step])
        return generator.choice(len(self._shares), size=size, p=self._shares)

    def _endless(self, dataset: Examples, drawn: int) -> Iterator[Any]:
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

    def fetch(self, draws: Sequence[Draw]) -> list[Example]:
        """The examples of those draws, in order."""
        fetched = [
            iter(dataset.fetch([entry for number, entry in draws if number == n]))
            for n, dataset in enumerate(self._datasets)
        ]
        return [next(fetched[number]) for number, _ in draws]


class Shares(Dataset[list[Example]]):
    """What one process reads: a list of examples for each forward pass, `accumulation` of them a step.

    A step's examples are dealt out in runs of `batch_size`, to each process in turn.

    Attributes:
        start: how many steps are over.
    """

    def __init__(
        self, mixture: Mixture, *, batch_size: int, accumulation: int, processes: int = 1, process: int = 0
    ) -> None:
        self.start = 0
        self._mixture = mixture
        self._batch_size = batch_size
        self._size = batch_size * accumulation * processes
        self._offsets = range(process * batch_size, self._size, processes * batch_size)

    def draws(self) -> Iterator[list[Draw]]:
        """What each forward pass learns from, without an end, from step `start` on."""
        for draws in self._mixture.steps(self._size, self.start):
            for offset in self._offsets:
                yield draws[offset : offset + self._batch_size]

    def __getitem__(self, draws: Sequence[Draw]) -> list[Example]:
        return self._mixture.fetch(draws)

    def epochs(self, step: int) -> float:
        """How often the first dataset was seen in `step` steps."""
        return self._mixture.epochs(step, self._size)
