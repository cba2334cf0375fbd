"""What the benchmark of the engine measures, with images of one size: rounds in which the methods alternate.

Every method scores every group once in each round, and a matrix product is timed beside each group size. The
plain method's time is proportional to its comparisons, so it is timed on a sample of them and scaled; the
preparation of all K images is timed whole.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

from prefrm.bench.meters import PeakMemory, matrix_product_rate, seconds_in, timed
from prefrm.bench.methods import (
    METHODS,
    PLAIN,
    EngineMethod,
    PlainMethod,
    both_orders,
    noise_images,
    reference_probabilities,
)
from prefrm.bench.operations import group_operations, vision_operations
from prefrm.bench.random_model import PROMPT, Shape, build_judges, side_of
from prefrm.errors import ScoringError
from prefrm.progress import track

__all__ = ["Cell", "Rounds", "Settings"]

WARM_UP = 2
ENCODED = 16
"""How many encodes are timed by themselves, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and where.

    Attributes:
        device: a CPU or a GPU.
        dtype: of the backbone.
        sizes: the group sizes K, ascending.
        rounds: at least 1.
        sample: on how many comparisons the plain method is timed at most, but for a batch.
        batch_sizes: of the plain method; all that fit into memory are tried.
        compared: number of candidates whose comparisons the reference makes again, all of them at most.
    """

    device: torch.device
    dtype: torch.dtype
    sizes: tuple[int, ...]
    rounds: int
    sample: int
    batch_sizes: tuple[int, ...]
    compared: int


@dataclass(kw_only=True)
class Cell:
    """What was measured of one method at one K, round by round.

    Attributes:
        operations: of a group, at least.
        timed_pairs: on how many comparisons it was timed, each order counting as one.
        seconds: of a group.
        peaks: of memory, in MiB.
        max_abs_diff: of a probability from the reference's; None if there is no other reference.
    """

    operations: int
    timed_pairs: int
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    max_abs_diff: float | None = None


class Rounds:
    """The benchmark with images of one size.

    Args:
        shape: of the model, which is built here.
        image_tokens: of an image.
        settings: what is measured, and where.

    Attributes:
        cells: by method and K; `run` fills them.
        rates: of matrix products, in operations a second.
        plain: the plain method, whose batch size was chosen here.
    """

    def __init__(self, shape: Shape, image_tokens: int, settings: Settings) -> None:
        self.rates: list[float] = []
        self._settings = settings
        self._device, self._dtype = settings.device, settings.dtype
        self._judges = build_judges(shape, image_tokens, device=self._device, dtype=self._dtype)
        images = noise_images(max(*settings.sizes, settings.compared), side_of(image_tokens))
        self.plain = PlainMethod(self._judges["joint"], images)
        self._engines = {name: EngineMethod(judge, images) for name, judge in self._judges.items()}
        (self._image,) = self.plain.prepare(1)
        self._references: dict[str, npt.NDArray[np.float64]] = {}
        self.cells: dict[tuple[str, int], Cell] = {}

    def run(self) -> None:
        """Measure everything."""
        self._prepare()
        self._measure()

    def encodes_of_floor(self) -> float | None:
        """The part of a matrix product's rate that the engine's encodes attain; None if it calls no tower."""
        judge, k = self._judges["scalar"], min(ENCODED, max(self._settings.sizes))
        tower = judge.model.get_submodule(judge.family.vision_tower)
        seconds = seconds_in(tower, lambda: self._engines["scalar"].score(k), self._device)
        operations = k * vision_operations(judge.model.config, self._image.grid)
        return operations / statistics.median(self.rates) / seconds if seconds else None

    def _cell(self, method: str, k: int) -> Cell:
        judge = self._judges["joint" if method == PLAIN else method]
        pairs = k * (k - 1)
        batch = self.plain.batch_size
        sample = batch * max(1, self._settings.sample // batch)
        return Cell(
            operations=group_operations(judge, method, k, prompt=PROMPT, image=self._image),
            timed_pairs=min(pairs, sample) if method == PLAIN else pairs,
        )

    def _prepare(self) -> None:
        """Choose the plain method's batch size, ask the references, and run every engine once."""
        settings = self._settings
        tries = settings.rounds * len(settings.batch_sizes)
        with track("warming up", tries + len(self._judges)) as advance:
            self.plain.choose_batch_size(settings.batch_sizes, tries=settings.rounds, advance=advance)
            for n, (name, judge) in enumerate(self._judges.items(), start=1):
                self._references[name] = reference_probabilities(judge, self.plain, settings.compared)
                self._engines[name].score(WARM_UP)
                advance(tries + n)
        self.cells = {(method, k): self._cell(method, k) for k in settings.sizes for method in METHODS}

    def _measure(self) -> None:
        total = self._settings.rounds * sum(self._work(method, k) for method, k in self.cells)
        with track("scoring (percent)", 100) as advance:
            done = 0
            for method, k in self._turns():
                with PeakMemory(self._device) as memory:
                    seconds = self._plain(k) if method == PLAIN else self._engine(method, k)
                self.cells[method, k].seconds.append(seconds)
                self.cells[method, k].peaks.append(memory.peak_mb)
                done += self._work(method, k)
                advance(100 * done // total)

    def _turns(self) -> Iterator[tuple[str, int]]:
        """What is timed, in order; before the methods of each group size, a matrix product."""
        for _, k in product(range(self._settings.rounds), self._settings.sizes):
            self.rates.append(matrix_product_rate(self._device, self._dtype))
            for method in METHODS:
                yield method, k

    def _work(self, method: str, k: int) -> int:
        """Operations that are really done."""
        cell = self.cells[method, k]
        return cell.operations * cell.timed_pairs // (k * (k - 1))

    def _plain(self, k: int) -> float:
        """Seconds of a group of K."""
        pairs, count = both_orders(k), self.cells[PLAIN, k].timed_pairs
        images, preparing = timed(lambda: self.plain.prepare(k), self._device)
        _, reading = timed(lambda: self.plain.read(images, pairs[:count]), self._device)
        return preparing + reading * len(pairs) / count

    def _engine(self, method: str, k: int) -> float:
        """Seconds of a group of K; notes how far its probabilities are from the reference's."""
        p_KK, seconds = timed(lambda: self._engines[method].score(k), self._device)
        cell = self.cells[method, k]
        cell.max_abs_diff = max(cell.max_abs_diff or 0.0, self._difference(method, p_KK))
        return seconds

    def _difference(self, method: str, p_KK: npt.NDArray[np.float32]) -> float:
        most = min(len(p_KK), self._settings.compared)
        difference = np.abs(p_KK[:most, :most] - self._references[method][:most, :most]).max()
        if not np.isfinite(difference):
            name = str(self._dtype).removeprefix("torch.")
            raise ScoringError(f"{method} gave a probability that is no number in {name}; give another dtype")
        return float(difference)
