"""The training loop: `transformers.Trainer` with a judge's loss, and the callbacks that report on it.

The loop writes no checkpoint of its own: its optimizer states would be pickles.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefrm.errors import ConfigError
from prefrm.judge import Judge
from prefrm.progress import Advance

__all__ = ["JudgeTrainer", "MetricsFile", "ReportProgress", "StopAtNonFinite"]


class JudgeTrainer(Trainer):
    """Minimises the soft-target cross-entropy of verdicts, over batches of `ComparisonCollator`.

    Trains on the judge's device and on no other: `transformers` alone would take the first accelerator
    and split each batch over all of them, which a `JudgeBatch` cannot be.
    """

    def __init__(self, *, model: Judge, args: TrainingArguments, **settings: Any) -> None:
        args._n_gpu = min(args.n_gpu, 1)
        args.distributed_state.device = model.device
        # A cached property, which the first line has computed.
        args.__dict__["_setup_devices"] = model.device
        super().__init__(model=model, args=args, **settings)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of the batch, in nats; with `return_outputs` also the outcomes of its comparisons.

        A batch of which nothing could be read has the loss 0 and changes nothing.
        """
        if inputs["batch"] is None:
            loss = 0.0 * sum(p.sum() for p in model.parameters() if p.requires_grad)
            return (loss, {"outcomes": inputs["p_B"]}) if return_outputs else loss
        outcomes = model(inputs["batch"])
        loss = self.accelerator.unwrap_model(model).loss(outcomes, inputs["p_B"], inputs["weight_B"])
        return (loss, {"outcomes": outcomes}) if return_outputs else loss


class ReportProgress(TrainerCallback):
    """Reports the optimizer step to a progress bar."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._advance(state.global_step)


class StopAtNonFinite(TrainerCallback):
    """Ends a training that cannot recover."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise `ConfigError` that names the step, if a logged number is no finite one."""
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"the training diverged: {name} is {value} at step {state.global_step}; "
                    "lower optim.lr, lengthen optim.warmup, or set dtype to float32"
                )


class MetricsFile(TrainerCallback):
    """Writes one JSON line to a file for each log of the trainer: step, loss, grad_norm, learning_rate."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file anew."""
        self._path.write_text("", encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}, allow_nan=False) + "\n")
