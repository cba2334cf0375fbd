"""Which examples each optimizer step learns from, and which of them each process reads.

The order depends on the seed, the datasets and the number of examples in a step, and on nothing else:
not on how many processes or forward passes share the step, nor on where a run was interrupted.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, Protocol

from torch.utils.data import IterableDataset

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
    """The examples of each step, in epochs that are shuffled anew with the seeds seed, seed + 1, ...

    An epoch's last step has what is left.
    """

    def __init__(self, datasets: Sequence[Examples], *, seed: int) -> None:
        self._datasets = datasets
        self._seed = seed

    def steps(self, size: int, start: int = 0) -> Iterator[list[Draw]]:
        """What each step learns from, `size` examples a step, without an end; from step `start` on."""
        (dataset,) = self._datasets
        first, done = divmod(start, -(-len(dataset) // size))
        for epoch in count(first):
            order = dataset.order(self._seed + epoch, skip=done * size)
            while draws := [(0, entry) for entry in islice(order, size)]:
                yield draws
            done = 0

    def epochs(self, step: int, size: int) -> float:
        """How often the first dataset was seen in `step` steps."""
        return step / -(-len(self._datasets[0]) // size)

    def fetch(self, draws: Sequence[Draw]) -> list[Example]:
        """The examples of those draws, in order."""
        fetched = [
            iter(dataset.fetch([entry for number, entry in draws if number == n]))
            for n, dataset in enumerate(self._datasets)
        ]
        return [next(fetched[number]) for number, _ in draws]


class Shares(IterableDataset):  # type: ignore[type-arg]
    """What one process reads: a list of examples for each forward pass, `accumulation` of them a step.

    A step's examples are dealt out in runs of `batch_size`, to each process in turn; where a step is
    smaller than that, lists are shorter, or empty.

    Attributes:
        start: how many steps are over.
    """

    def __init__(
        self, mixture: Mixture, *, batch_size: int, accumulation: int, processes: int = 1, process: int = 0
    ) -> None:
        super().__init__()
        self.start = 0
        self._mixture = mixture
        self._batch_size = batch_size
        self._size = batch_size * accumulation * processes
        self._offsets = range(process * batch_size, self._size, processes * batch_size)

    def __iter__(self) -> Iterator[list[Example]]:
        for draws in self._mixture.steps(self._size, self.start):
            for offset in self._offsets:
                yield self._mixture.fetch(draws[offset : offset + self._batch_size])

    def epochs(self, step: int) -> float:
        """How often the first dataset was seen in `step` steps."""
        return self._mixture.epochs(step, self._size)
