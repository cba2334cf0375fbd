"""What one would write first: `transformers.Trainer` over single pairs, each pushed whole through the model.

The same judge, adapter and loss as `prefrm.train`, but every pair is a prompt of its own for the model's
own forward pass: no image is encoded once for several pairs, no prompt is shared, and the logits of the
whole vocabulary are computed at every position. Only to compare speeds with.

Shapes: N comparisons, R sequences.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from prefrm.bench.inputs import last_positions, own_attention, plain_inputs, plain_sequences
from prefrm.judge import Judge, Segment
from prefrm.media import decode
from prefrm.records import read_groups

__all__ = ["PlainCollator", "PlainJudge", "StepClock", "plain_rate", "single_pairs"]


class StepClock(TrainerCallback):
    """Keeps the seconds from the end of each step to the end of the next; the first step is warm-up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note how long the step took, batch included."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now

    @property
    def median(self) -> float:
        """Of the steps after the first."""
        return statistics.median(self.seconds)


class PlainJudge(nn.Module):
    """A judge around the forward pass that `transformers` has."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, inputs: dict[str, torch.Tensor], p_N: torch.Tensor) -> Any:
        """The loss, as `Trainer` expects it."""
        judge = self.judge
        with own_attention(judge):
            out = judge.model(**inputs, output_hidden_states=True, use_cache=False)
        readings = judge.read(out.hidden_states[-1][last_positions(inputs)])
        pairwise = judge.spec.is_pairwise
        outcomes = readings if pairwise else judge.head.compare(readings[0::2], readings[1::2])
        return {"loss": judge.loss(outcomes, p_N)}


class PlainCollator:
    """Pads whole prompts: one of two images for a joint verdict, two of one image for the other heads."""

    def __init__(self, judge: Judge) -> None:
        self._processor = judge.processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        processor = self._processor
        sequences: list[list[Segment]] = []
        for row in rows:
            names = ("first", "second")
            tree = processor.tree(
                row["prompt"], {name: processor.prepare_image(decode(row[name])) for name in names}
            )
            sequences += plain_sequences(tree, [names])
        p_N = torch.tensor([row["p"] for row in rows], dtype=torch.float32)
        return {"inputs": plain_inputs(processor, sequences), "p_N": p_N}


def single_pairs(folder: Path, split: str, count: int) -> Dataset:
    """The first comparisons of a split, one a row."""
    rows: list[dict[str, Any]] = []
    for group in read_groups(folder, split):
        rows += [
            {"prompt": group.prompt, "first": group.images[c.i], "second": group.images[c.j], "p": c.p}
            for c in group.comparisons
        ]
        if len(rows) >= count:
            break
    return Dataset.from_list(rows[:count])


def plain_rate(judge: Judge, pairs: Dataset, *, batch_size: int, steps: int, output: Path) -> float:
    """Comparisons a second, by the median step."""
    clock = StepClock()
    trainer = Trainer(
        model=PlainJudge(judge),
        args=TrainingArguments(
            output_dir=str(output),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=judge.device.type == "cpu",
            dataloader_pin_memory=False,
        ),
        train_dataset=pairs,
        data_collator=PlainCollator(judge),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return batch_size / clock.median
