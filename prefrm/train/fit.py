"""The training of a judge on a mixture of groups: `JudgeTrainer` with its arguments and callbacks."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from prefrm.checkpoints import Checkpoints
from prefrm.errors import ConfigError, DatasetError
from prefrm.judge import Judge
from prefrm.progress import track
from prefrm.train.callbacks import MetricsFile, ReportProgress
from prefrm.train.collate import GroupCollator
from prefrm.train.config import OptimConfig
from prefrm.train.distributed import gather, is_first, processes, rank
from prefrm.train.memory import activation_checkpointing
from prefrm.train.mixing import Mixture, Shares
from prefrm.train.state import load_weights
from prefrm.train.trainer import JudgeTrainer, final_weights, read_state
from prefrm.train.validation import Validation

__all__ = ["fit", "take_over"]

logger = logging.getLogger(__name__)

SCHEDULES = {"cosine": "cosine", "constant": "constant_with_warmup"}
"""As `transformers` names them."""


def fit(
    judge: Judge,
    mixture: Mixture,
    optim: OptimConfig,
    *,
    output: Path,
    seed: int,
    checkpoints: Checkpoints | None = None,
    resume_from: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    validation: Validation | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, str]:
    """Train `judge` in place and leave it in evaluation mode.

    Args:
        output: folder of `metrics.jsonl`.
        checkpoints: where checkpoints go; None writes none.
        resume_from: a checkpoint of this very run, to continue from.
        identity: of the run (`prefrm.train.identity`); it is kept in every checkpoint.
        num_workers: as in `DataConfig`.
        validation: of this judge; with patience, the judge ends with its best weights.
        callbacks: of the training loop, besides its own.

    Returns:
        The ids of records of which a comparison could not be read, with the reason; of all processes.

    Raises:
        ConfigError: the training diverged, or this device cannot train in that precision.
        DatasetError: no comparison could be read.
    """
    _check_precision(judge, optim.precision)
    _warn_of_short_weights(judge)
    trainer = JudgeTrainer(
        model=judge,
        args=_arguments(optim, output, judge, seed, None if checkpoints is None else checkpoints.every),
        checkpoints=checkpoints,
        validation=validation,
        identity=identity,
        num_workers=num_workers,
        train_dataset=Shares(
            mixture,
            batch_size=optim.batch_size,
            accumulation=optim.accumulation,
            pairs_per_group=optim.pairs_per_group,
            processes=processes(),
            process=rank(),
        ),
        data_collator=GroupCollator(judge.processor),
        callbacks=[MetricsFile(output / "metrics.jsonl"), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    with activation_checkpointing(judge, optim.gradient_checkpointing), _progress(trainer, resume_from):
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    # Autocast is around the judge's forward pass until it is unwrapped.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if validation is not None and validation.best_weights is not None:
        load_weights(judge, validation.best_weights)
    judge.eval()
    return _left_out(gather(trainer.coverage.state_dict()))


@contextmanager
def _progress(trainer: JudgeTrainer, resume_from: Path | None) -> Iterator[None]:
    """Show the progress of the block, in the first process."""
    if not is_first():
        yield
        return
    done = 0 if resume_from is None else read_state(resume_from)["step"]
    with track("training", trainer.args.max_steps, done) as tracker:
        trainer.add_callback(ReportProgress(tracker))
        yield


def take_over(judge: Judge, checkpoint: Path) -> dict[str, str]:
    """Load the weights of a finished training from its checkpoint; returns what `fit` returned."""
    load_weights(judge, final_weights(checkpoint))
    return _left_out([process["coverage"] for process in read_state(checkpoint)["processes"]])


def _left_out(seen: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Merges the coverage of each process. Raises `DatasetError` if none of them could read anything."""
    left_out: dict[str, str] = {record: reason for one in seen for record, reason in one["left_out"].items()}
    if not sum(one["read"] for one in seen):
        record, reason = next(iter(left_out.items()))
        raise DatasetError(f"no comparison could be read, such as that of record {record!r}: {reason}")
    return left_out


def _check_precision(judge: Judge, precision: str) -> None:
    if precision != "fp16":
        return
    if judge.device.type == "cpu":
        raise ConfigError("optim.precision=fp16 needs an accelerator, and the judge is on the CPU; use bf16")
    if (dtype := judge.model.dtype) != torch.float32:
        raise ConfigError(
            f"optim.precision=fp16 needs weights of float32, and the judge's are of {_name(dtype)}; "
            "set dtype=float32"
        )


def _warn_of_short_weights(judge: Judge) -> None:
    """Warn if weights of half precision learn, which round small steps away."""
    learning = {p.dtype for p in judge.parameters() if p.requires_grad}
    if short := sorted(_name(dtype) for dtype in learning - {torch.float32, torch.float64}):
        logger.warning(
            "weights that learn are %s, which rounds small steps away: they may not move at all; set "
            "dtype=float32, with optim.precision=bf16 to save time and memory, or train an adapter",
            " and ".join(short),
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _arguments(
    optim: OptimConfig, output: Path, judge: Judge, seed: int, save_every: int | None
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.lr,
        lr_scheduler_type=SCHEDULES[optim.schedule],
        warmup_steps=round(optim.warmup * optim.steps),
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.precision == "bf16",
        fp16=optim.precision == "fp16",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if save_every is None else "steps",
        save_steps=save_every or optim.steps,
        # The groups of the steps that are over are skipped where they are drawn.
        ignore_data_skip=True,
        # Trackers are callbacks of `prefrm.train.reporting`.
        report_to="none",
        run_name=output.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=judge.device.type == "cpu",
        dataloader_pin_memory=False,
        seed=seed,
    )
