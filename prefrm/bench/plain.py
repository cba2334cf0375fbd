"""What one would write first: `transformers.Trainer` over single pairs, each pushed whole through the model.

The same judge, adapter and loss as `prefrm.train`, but every pair is a prompt of its own for the model's
own forward pass: no image is encoded once for several pairs, no prompt is shared, and the logits of the
whole vocabulary are computed at every position. Only to compare speeds with.

Shapes: N comparisons, L positions, R sequences.
"""

import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from prefrm.bench.inputs import Sequences, own_attention, plain_inputs, sequences
from prefrm.judge import Judge
from prefrm.media import decode
from prefrm.records import PreferenceGroup

__all__ = ["PlainCollator", "PlainJudge", "StepClock", "plain_seconds", "single_pairs"]

Row = dict[str, Any]
"""One comparison: "prompt", the encoded images "first" and "second", and "p" that the first is preferred."""


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

    def forward(self, inputs: dict[str, torch.Tensor], last_R: torch.Tensor, p_N: torch.Tensor) -> Any:
        """The loss, as `Trainer` expects it."""
        judge = self.judge
        rows_R = torch.arange(len(last_R), device=last_R.device)
        with own_attention(judge):
            out = judge.model(**inputs, output_hidden_states=True, use_cache=False)
        readings = judge.read(out.hidden_states[-1][rows_R, last_R].unsqueeze(1))
        pairwise = judge.spec.is_pairwise
        outcomes = readings if pairwise else judge.head.compare(readings[0::2], readings[1::2])
        return {"loss": judge.loss(outcomes, p_N)}


class PlainCollator:
    """Pads whole prompts: one of two images for a joint verdict, two of one image for the other heads."""

    def __init__(self, judge: Judge) -> None:
        self._processor = judge.processor

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        processor = self._processor
        read: Sequences = []
        for row in rows:
            images = [processor.prepare_image(decode(row[name])) for name in ("first", "second")]
            read += sequences(processor.tree(row["prompt"], dict(enumerate(images))), [(0, 1)])
        inputs = plain_inputs(read)
        p_N = torch.tensor([row["p"] for row in rows], dtype=torch.float32)
        return {"inputs": inputs, "last_R": inputs["attention_mask"].sum(dim=1) - 1, "p_N": p_N}


def single_pairs(groups: Iterable[PreferenceGroup], count: int, *, both_orders: bool = False) -> list[Row]:
    """The first comparisons of groups, one a row; with `both_orders`, each in both presentation orders."""
    rows: list[Row] = []
    for group in groups:
        for c in group.comparisons:
            for shown in (c, c.swapped()) if both_orders else (c,):
                first, second = group.candidates[shown.i], group.candidates[shown.j]
                rows.append({"prompt": group.prompt, "first": first, "second": second, "p": shown.p})
        if len(rows) >= count:
            break
    return rows[:count]


def plain_seconds(
    judge: Judge,
    pairs: Sequence[Row],
    *,
    batch_size: int,
    steps: int,
    output: Path,
    workers: int = 0,
    bf16: bool = False,
) -> float:
    """Seconds of the median step.

    Args:
        judge: that learns.
        pairs: of `single_pairs`.
        batch_size: comparisons in a step.
        steps: at least 2; the first is not counted.
        output: a folder that nothing is kept in.
        workers: processes that prepare batches ahead.
        bf16: whether the forward pass runs under autocast.
    """
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
            dataloader_num_workers=workers,
            bf16=bf16,
        ),
        train_dataset=pairs,
        data_collator=PlainCollator(judge),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    # Autocast is around the forward pass until it is unwrapped.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    return clock.median
