"""A part: what a group costs by each method, on one model with random weights, at one size of images."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from prefrm.bench.gpu.failures import raise_for, reason_for, release_memory
from prefrm.bench.gpu.models import SHAPES, weights_gib
from prefrm.bench.gpu.rows import EngineCell
from prefrm.bench.meters import PeakMemory, seconds_in, timed
from prefrm.bench.methods import PLAIN, EngineMethod, PlainMethod, both_orders, noise_images
from prefrm.bench.operations import group_operations, vision_operations
from prefrm.bench.random_model import KINDS, PROMPT, build_backbone, build_judge, side_of
from prefrm.judge.model import resolve_device, resolve_dtype

__all__ = ["measure"]

ENCODED = 16
"""Images of a pass of the vision tower that is timed by itself, at most."""


def measure(
    device: str,
    *,
    shape: str,
    image_tokens: int,
    methods: Sequence[str],
    sizes: Sequence[int],
    rounds: int,
    sample: int,
    batch_sizes: Sequence[int],
    cell_s: float,
    compile: bool,
) -> Iterator[dict[str, Any]]:
    """Time every method at every group size, the small ones first.

    Args:
        device: as in `Judge.from_base`.
        shape: one of `SHAPES`.
        image_tokens: of an image.
        methods: of `prefrm.bench.methods.METHODS`.
        sizes: the group sizes K, ascending.
        rounds: of which a figure is the median.
        sample: on how many comparisons the plain method is timed at most, but for a batch.
        batch_sizes: of the plain method; the best is taken.
        cell_s: seconds that a group may take; of one that would take longer, the time is scaled from the
            largest that was timed, by operations. So it is for the plain method beyond its sample.
        compile: as of `Engine`; it would compile the plain method's layers, too.
    """
    group = _Groups(device, shape, image_tokens, max(sizes), compile=compile)
    if PLAIN in methods:
        group.plain.choose_batch_size(batch_sizes, tries=2, advance=lambda done: None)
    found: dict[str, Any] = {
        "shape": shape,
        "image_tokens": image_tokens,
        "dtype": str(group.dtype).removeprefix("torch."),
        "weights_gib": weights_gib(group.plain.judge.model),
        "plain_batch": group.plain.batch_size if PLAIN in methods else None,
        "encodes_tflops": group.encodes_tflops(min(ENCODED, max(sizes))),
        "cells": [],
    }
    yield found
    for k in sizes:
        for method in methods:
            before = [EngineCell(**cell) for cell in found["cells"] if cell["method"] == method]
            cell = group.cell(method, k, before, rounds=rounds, sample=sample, cell_s=cell_s)
            found["cells"].append(asdict(cell))
            yield found
    raise_for(cell["reason"] for cell in found["cells"])


class _Groups:
    """Groups of noise, and the methods that score them."""

    def __init__(
        self, device: str, shape: str, image_tokens: int, largest: int, *, compile: bool = False
    ) -> None:
        self._device = resolve_device(device)
        self._compile = compile
        self.dtype = resolve_dtype("auto", self._device)
        backbone = build_backbone(SHAPES[shape], device=self._device, dtype=self.dtype)
        self._judges = {name: build_judge(backbone, image_tokens, **kind) for name, kind in KINDS.items()}
        images = noise_images(largest, side_of(image_tokens))
        self.plain = PlainMethod(self._judges["joint"], images)
        self._engines = {
            name: EngineMethod(judge, images, compile=compile) for name, judge in self._judges.items()
        }
        (self._image,) = self.plain.prepare(1)

    def encodes_tflops(self, k: int) -> float:
        """10^12 operations a second of the vision tower, K images at once, as the engine calls it."""
        judge, engine = self._judges["scalar"], self._engines["scalar"]
        tower = judge.model.get_submodule(judge.family.vision_tower)
        # The first pass allocates memory and chooses kernels.
        seconds = min(seconds_in(tower, lambda: engine.score(k), self._device) for _ in range(3))
        return k * vision_operations(judge.model.config, self._image.grid) / seconds / 1e12

    def cell(
        self, method: str, k: int, before: Sequence[EngineCell], *, rounds: int, sample: int, cell_s: float
    ) -> EngineCell:
        """Time a group of K, or scale what is known from the smaller ones of this method."""
        pairs = k * (k - 1)
        if method == PLAIN:
            batch = self.plain.batch_size
            pairs = min(pairs, batch * max(1, sample // batch))
        cell = EngineCell(method=method, k=k, timed_pairs=pairs)
        if before and before[-1].reason:
            return replace(cell, reason=before[-1].reason)
        known = next((one for one in reversed(before) if one.estimated_from is None), None)
        if known is not None:
            scaled = self._scaled(known, cell)
            # As many comparisons of the plain method take as long whatever the size of their group.
            alike = method == PLAIN and known.timed_pairs == pairs
            if alike or (method != PLAIN and (scaled.seconds or 0.0) > cell_s):
                return scaled
        try:
            return self._timed(cell, rounds, cell_s)
        except Exception as error:
            failed = replace(cell, reason=reason_for(error))
        release_memory()
        return failed

    def _timed(self, cell: EngineCell, rounds: int, cell_s: float) -> EngineCell:
        turn = self._plain if cell.method == PLAIN else self._engine
        turns: list[tuple[float, float]] = []
        if self._compile and cell.method != PLAIN:
            # The first call compiles layers and records passes.
            self._engines[cell.method].score(cell.k)
        with PeakMemory(self._device) as memory:
            started = time.monotonic()
            while len(turns) < rounds and (not turns or time.monotonic() - started < cell_s):
                turns.append(turn(cell))
        whole, decoded = (statistics.median(column) for column in zip(*turns, strict=True))
        return replace(
            cell,
            seconds=whole,
            decoded_seconds=decoded,
            tflops=self._operations(cell.method, cell.k) / decoded / 1e12,
            peak_mb=memory.peak_mb,
        )

    def _plain(self, cell: EngineCell) -> tuple[float, float]:
        pairs = both_orders(cell.k)
        images, preparing = timed(lambda: self.plain.prepare(cell.k), self._device)
        _, reading = timed(lambda: self.plain.read(images, pairs[: cell.timed_pairs]), self._device)
        reading *= len(pairs) / cell.timed_pairs
        return preparing + reading, reading

    def _engine(self, cell: EngineCell) -> tuple[float, float]:
        engine = self._engines[cell.method]
        _, whole = timed(lambda: engine.score(cell.k), self._device)
        kept = engine.prepare(cell.k)
        _, decoded = timed(lambda: engine.score(cell.k), self._device)
        del kept
        return whole, decoded

    def _scaled(self, known: EngineCell, cell: EngineCell) -> EngineCell:
        """Images are decoded as fast as those of the smaller group, and its operations done as fast."""
        assert known.seconds is not None and known.decoded_seconds is not None
        times = self._operations(cell.method, cell.k) / self._operations(known.method, known.k)
        decoded = known.decoded_seconds * times
        return replace(
            cell,
            seconds=decoded + (known.seconds - known.decoded_seconds) * cell.k / known.k,
            decoded_seconds=decoded,
            tflops=known.tflops,
            timed_pairs=known.timed_pairs,
            estimated_from=known.k,
        )

    def _operations(self, method: str, k: int) -> int:
        judge = self._judges["joint" if method == PLAIN else method]
        return group_operations(judge, method, k, prompt=PROMPT, image=self._image)
