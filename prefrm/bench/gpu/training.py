"""A part: training steps of one model with random weights, beside a plain loop of `transformers`."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from prefrm.bench.gpu.failures import raise_for, reason_for, release_memory
from prefrm.bench.gpu.models import SHAPES, quantize_in_place, weights_gib
from prefrm.bench.gpu.rows import TrainingRow
from prefrm.bench.meters import PeakMemory
from prefrm.bench.methods import PLAIN, noise_images
from prefrm.bench.plain import PlainCollator, StepClock, plain_seconds, single_pairs
from prefrm.bench.random_model import KINDS, PROMPT, build_backbone, build_judge, side_of
from prefrm.judge import Judge
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.records import Comparison, PreferenceGroup
from prefrm.train.adapters import add_lora, trainable_parameters
from prefrm.train.collate import GroupCollator
from prefrm.train.config import OptimConfig
from prefrm.train.fit import fit
from prefrm.train.memory import activation_checkpointing
from prefrm.train.mixing import Mixture

__all__ = ["NoiseGroups", "measure"]

LR = 1e-5


def measure(
    device: str,
    *,
    shape: str,
    image_tokens: int,
    rows: Sequence[tuple[str, int, int]],
    adapter: Mapping[str, Any] | None,
    quantize: bool,
    steps: int,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """Time the steps of every row.

    Args:
        device: as in `Judge.from_base`.
        shape: one of `SHAPES`.
        image_tokens: of an image.
        rows: a method of `prefrm.bench.methods.METHODS`, candidates of a group, groups of a step.
        adapter: of `add_lora`; None trains every weight, stored in float32 and read in bfloat16.
        quantize: whether the layers that the adapter is around are stored in four bits.
        steps: that are timed, after one that is not.
        workers: processes that prepare batches ahead, at most one fewer than there are cores.
    """
    learner = _Learner(device, shape, image_tokens, adapter=adapter, quantize=quantize)
    found: dict[str, Any] = {
        "shape": shape,
        "image_tokens": image_tokens,
        "weights_gib": weights_gib(learner.backbone),
        "trainable": trainable_parameters(learner.judges["joint"]),
        "rows": [],
    }
    yield found
    workers = min(workers, (os.cpu_count() or 1) - 1)
    for method, k, groups in rows:
        row = learner.row(method, k, groups, steps=steps + 1, workers=workers)
        found["rows"].append(asdict(row))
        yield found
    raise_for(row["reason"] for row in found["rows"])


class NoiseGroups:
    """Groups of noise with all their comparisons; a `prefrm.train.mixing.Groups`."""

    def __init__(self, k: int, count: int, side: int) -> None:
        images = noise_images(k * count, side)
        comparisons = tuple(Comparison.preferred(i, j) for i, j in combinations(range(k), 2))
        self.groups = [
            PreferenceGroup(
                id=str(n), prompt=PROMPT, candidates=tuple(images[n * k : n * k + k]), comparisons=comparisons
            )
            for n in range(count)
        ]

    def __len__(self) -> int:
        return len(self.groups)

    def order(self, seed: int, skip: int = 0) -> Iterator[int]:
        """Every group, as they stand."""
        yield from range(skip, len(self))

    def fetch(self, entry: int) -> PreferenceGroup:
        """The group of that number."""
        return self.groups[entry]


class _Learner:
    """Judges on one backbone of which the same weights learn."""

    def __init__(
        self,
        device: str,
        shape: str,
        image_tokens: int,
        *,
        adapter: Mapping[str, Any] | None,
        quantize: bool,
    ) -> None:
        self._device = resolve_device(device)
        self._side = side_of(image_tokens)
        self._checkpointing = True
        on_gpu = self._device.type != "cpu"
        # As the configurations have it: an adapter on short weights, or all weights in float32 and autocast.
        self._bf16 = adapter is None and on_gpu
        dtype = torch.float32 if adapter is None else resolve_dtype("auto", self._device)
        self.backbone = build_backbone(SHAPES[shape], device=self._device, dtype=dtype)
        if quantize:
            quantize_in_place(self.backbone)
        self.judges: dict[str, Judge] = {}
        for name, kind in KINDS.items():
            judge = build_judge(self.backbone, image_tokens, **kind)
            if adapter is not None and not self.judges:
                add_lora(judge, **adapter)
            elif adapter is not None:
                judge.backbone = next(iter(self.judges.values())).backbone
            self.judges[name] = judge

    def row(self, method: str, k: int, groups: int, *, steps: int, workers: int) -> TrainingRow:
        """Train for a number of steps; the first is not counted."""
        judge = self.judges["joint" if method == PLAIN else method]
        data = NoiseGroups(k, groups, self._side)
        orders = 2 if judge.spec.is_pairwise else 1
        comparisons = orders * groups * k * (k - 1) // 2
        row = TrainingRow(method=method, k=k, groups=groups, comparisons=comparisons)
        learn = self._plain if method == PLAIN else self._prefrm
        try:
            with PeakMemory(self._device) as memory, tempfile.TemporaryDirectory() as output:
                tokens, seconds = learn(judge, data, comparisons, steps, workers, Path(output))
            row = replace(row, tokens=tokens, seconds=seconds, peak_gib=memory.total_mb / 1024)
        except Exception as error:
            row = replace(row, reason=reason_for(error))
        judge.zero_grad(set_to_none=True)
        release_memory()
        return row

    def _prefrm(
        self, judge: Judge, data: NoiseGroups, comparisons: int, steps: int, workers: int, output: Path
    ) -> tuple[int, float]:
        """Tokens and seconds of a step of `prefrm.train`."""
        clock = StepClock()
        optim = OptimConfig(
            steps=steps,
            batch_size=len(data),
            lr=LR,
            precision="bf16" if self._bf16 else "float32",
            gradient_checkpointing=self._checkpointing,
        )
        mixture = Mixture([data], seed=0)
        fit(judge, mixture, optim, output=output, seed=0, num_workers=workers, callbacks=[clock])
        tokens = len(GroupCollator(judge.processor)(data.groups)["batch"].ids_T)
        return tokens, clock.median

    def _plain(
        self, judge: Judge, data: NoiseGroups, comparisons: int, steps: int, workers: int, output: Path
    ) -> tuple[int, float]:
        """Tokens and seconds of a step over the same comparisons, each a whole prompt."""
        pairs = single_pairs(data.groups, comparisons, both_orders=True)
        with activation_checkpointing(judge, self._checkpointing):
            seconds = plain_seconds(
                judge,
                # One epoch: every epoch restarts its workers.
                pairs * steps,
                batch_size=comparisons,
                steps=steps,
                output=output,
                workers=workers,
                bf16=self._bf16,
            )
        inputs = PlainCollator(judge)(pairs)["inputs"]
        return int(inputs["attention_mask"].sum()), seconds
