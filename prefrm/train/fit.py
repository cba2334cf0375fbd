"""Training itself: a judge, a mixture of examples, and what the loop needs to bring them together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainingArguments

from prefrm.errors import DatasetError
from prefrm.judge import Judge
from prefrm.progress import track
from prefrm.train.callbacks import MetricsFile, ReportProgress, StopAtNonFinite
from prefrm.train.checkpoints import Checkpoints
from prefrm.train.config import OptimConfig
from prefrm.train.data import ComparisonCollator, blank_batch
from prefrm.train.mixing import Mixture, Shares
from prefrm.train.processes import gather, processes, rank
from prefrm.train.state import load_weights, read_tensors
from prefrm.train.trainer import JudgeTrainer, read_state

__all__ = ["fit"]


def fit(
    judge: Judge,
    mixture: Mixture,
    optim: OptimConfig,
    *,
    output: Path,
    seed: int,
    checkpoints: Checkpoints | None = None,
    save_every: int = 100,
    resume_from: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Train `judge` in place and leave it in evaluation mode.

    Args:
        checkpoints: where checkpoints go, every `save_every` steps and at the end; None writes none.
        resume_from: a checkpoint of this very run, to continue from.
        settings: what each checkpoint says of the run.

    Returns:
        The ids of records of which a comparison could not be read, with the reason; of all processes.

    Raises:
        ConfigError: the training diverged.
        DatasetError: no comparison could be read.
    """
    collator = ComparisonCollator(judge.processor)
    state = None if resume_from is None else read_state(resume_from)
    if resume_from is not None and state is not None and state["finished"]:
        load_weights(judge, read_tensors(resume_from / "weights.safetensors"))
        seen = [process["collator"] for process in state["processes"]]
    else:
        arguments = _arguments(optim, output, judge, seed, None if checkpoints is None else save_every)
        with track("training", optim.steps) as advance:
            trainer = JudgeTrainer(
                model=judge,
                args=arguments,
                blank=blank_batch(judge.processor) if processes() > 1 else None,
                checkpoints=checkpoints,
                settings=settings,
                train_dataset=Shares(
                    mixture,
                    batch_size=optim.batch_size,
                    accumulation=optim.accumulation,
                    processes=processes(),
                    process=rank(),
                ),
                data_collator=collator,
                callbacks=[
                    ReportProgress(advance),
                    StopAtNonFinite(),
                    MetricsFile(output / "metrics.jsonl"),
                ],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        seen = gather(collator.state_dict())
    judge.eval()
    left_out = {record: reason for one in seen for record, reason in one["left_out"].items()}
    if not sum(one["read"] for one in seen):
        record, reason = next(iter(left_out.items()))
        raise DatasetError(f"no comparison could be read, such as that of record {record!r}: {reason}")
    return left_out


def _arguments(
    optim: OptimConfig, output: Path, judge: Judge, seed: int, save_every: int | None
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.lr,
        lr_scheduler_type="cosine",
        warmup_steps=round(optim.warmup * optim.steps),
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if save_every is None else "steps",
        save_steps=save_every or optim.steps,
        # The examples of the steps that are over are skipped where they are drawn.
        ignore_data_skip=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=judge.device.type == "cpu",
        dataloader_pin_memory=False,
        seed=seed,
    )
