"""The training loop: `transformers.Trainer` with a judge's loss, its own order of groups and checkpoints.

The checkpoints of `transformers` are pickles; these are safetensors and JSON (`prefrm.train.state`):

weights.safetensors, optimizer.safetensors   see there
best.safetensors     the weights of the lowest validation loss so far, with early stopping
state.json           the step, the run's identity, the seconds so far, the scheduler, and each process's
                     random numbers and coverage of the data
trainer_state.json   what `transformers` reads when it continues
"""

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from prefrm.judge import Judge
from prefrm.judge.weights import read_weights
from prefrm.checkpoints import Checkpoints
from prefrm.train.collate import Coverage, blank_batch
from prefrm.train.processes import gather, is_first, processes, rank, sharding, total, wait
from prefrm.train.state import (
    average_gradients,
    gather_optimizer,
    gather_weights,
    load_optimizer,
    load_weights,
    random_state,
    set_random_state,
    write_tensors,
)
from prefrm.train.validation import Validation

__all__ = ["JudgeTrainer", "final_weights", "read_state"]

WEIGHTS = "weights.safetensors"
BEST = "best.safetensors"


class JudgeTrainer(Trainer):
    """Minimises the soft-target cross-entropy of verdicts, over batches of `GroupCollator`.

    The loss of a step is the weighted mean over all comparisons of the step, however many forward
    passes and processes share them.

    Trains on the judge's device and on no other: `transformers` alone would take the first accelerator
    and split each batch over all of them, which a `JudgeBatch` cannot be.

    Args:
        model: the judge.
        args: of `transformers`.
        checkpoints: where they go.
        validation: one of the callbacks, if there is one; its state is kept in every checkpoint.
        identity: what tells this run from another, as JSON; it is kept in every checkpoint.
        num_workers: how many processes read and collate batches ahead; with 0, this one does.
        parent: all other arguments are of `Trainer`.
    """

    # `compute_loss` has divided by the weight of the whole step already.
    loss_is_scaled_for_ga = True
    # Narrower than `Trainer` knows: a `Judge`, `Shares`, a `GroupCollator`.
    model: Any
    train_dataset: Any
    data_collator: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        model: Judge,
        args: TrainingArguments,
        checkpoints: Checkpoints | None = None,
        validation: Validation | None = None,
        identity: Mapping[str, Any] | None = None,
        num_workers: int = 0,
        **parent: Any,
    ) -> None:
        args._n_gpu = min(args.n_gpu, 1)
        # A judge that is to be sharded comes on the CPU, and goes to where `accelerate` puts it.
        if not sharding():
            args.distributed_state.device = model.device
            # A cached property, which the first line has computed.
            args.__dict__["_setup_devices"] = model.device
        self._checkpoints = checkpoints
        self._validation = validation
        self._identity = dict(identity or {})
        self._num_workers = num_workers
        self._coverage = Coverage()
        self._started = time.monotonic()
        self._seconds_before = 0.0
        super().__init__(model=model, args=args, **parent)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """As `Trainer`, matrices only: a scale that decays is a temperature that drifts."""
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As `Trainer`; where the judge is sharded, the head, which is not, has a group of its own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self.is_fsdp_enabled:
            whole = {id(parameter) for parameter in self.model.head.parameters()}
            for group in list(optimizer.param_groups):
                apart = [parameter for parameter in group["params"] if id(parameter) in whole]
                if apart and len(apart) < len(group["params"]):
                    group["params"] = [p for p in group["params"] if id(p) not in whole]
                    optimizer.param_groups.append({**group, "params": apart})
        return optimizer

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As `Trainer`; where the judge is sharded, the gradients of what is not are averaged here."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.is_fsdp_enabled and self.accelerator.sync_gradients:
            average_gradients(self.model)
        return loss

    @property
    def coverage(self) -> Coverage:
        """What the batches so far held, and what was left out of them, in this process."""
        return self._coverage

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process's share; the generator keeps the loader off the global random numbers.

        What is drawn is decided in this process, and workers read and collate it, so their number changes
        neither batches nor their order.
        """
        return DataLoader(
            self.train_dataset,
            batch_size=None,
            sampler=self.train_dataset.draws(),
            collate_fn=self.data_collator,
            generator=torch.Generator(),
            num_workers=self._num_workers,
            worker_init_fn=_leave_interrupts_to_the_trainer if self._num_workers else None,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """The batches of one optimizer step, and the weight of all comparisons of the step, everywhere."""
        batches = [self._coverage.add(next(epoch_iterator)) for _ in range(num_batches)]
        return batches, total(torch.stack([batch["weight_N"].sum() for batch in batches]).sum().to(device))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The batch's part of the step's mean loss, in nats; with `return_outputs` also its outcomes.

        Without `num_items_in_batch`, the weight of the whole step, it is the mean loss of the batch. A
        batch of which nothing could be read has the loss 0 and no gradient; where that is a whole step, the
        optimizer's momentum and its decay still move the weights.
        """
        if inputs["batch"] is None:
            # Where processes share a model, all of them run it.
            loss = 0.0 * model(blank_batch(self.model.processor)).sum()
            return (loss, {"outcomes": inputs["p_N"]}) if return_outputs else loss
        outcomes = model(inputs["batch"])
        loss = self.model.loss(outcomes, inputs["p_N"], inputs["weight_N"])
        if num_items_in_batch is not None:
            # Gradients are averaged over processes, and the loss that is logged, too.
            loss = loss * (inputs["weight_N"].sum() / num_items_in_batch * processes())
        return (loss, {"outcomes": outcomes}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`, with the epochs of the data: to the loop, a run is one."""
        # The scaler skips such a step and lowers its scale; nothing has diverged.
        if self._scaler is not None and not math.isfinite(logs.get("grad_norm", 0.0)):
            del logs["grad_norm"]
        self.state.epoch = self.train_dataset.epochs(self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        """All processes gather what the first one keeps and writes."""
        inner = self._inner_optimizer
        weights = gather_weights(self.model, keep=is_first())
        optimizer, groups = gather_optimizer(self.model, inner, keep=is_first())
        state = {
            "step": self.state.global_step,
            "finished": self.control.should_training_stop,
            "seconds": self._seconds_before + time.monotonic() - self._started,
            "identity": self._identity,
            "scheduler": self.lr_scheduler.state_dict(),
            "optimizer": groups,
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "validation": None if self._validation is None else self._validation.state_dict(),
            "processes": gather({"random": random_state(), "coverage": self._coverage.state_dict()}),
        }
        if is_first() and self._checkpoints is not None:
            with self._checkpoints.writing(self.state.global_step) as folder:
                write_tensors(folder / WEIGHTS, weights)
                write_tensors(folder / "optimizer.safetensors", optimizer)
                if self._validation is not None and self._validation.best_weights is not None:
                    write_tensors(folder / BEST, self._validation.best_weights)
                _write_json(folder / "state.json", state)
                _write_json(folder / "trainer_state.json", {**vars(self.state), "log_history": []})
        wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        load_weights(self.model if model is None else model, read_weights(folder / WEIGHTS))
        state = read_state(folder)
        self.train_dataset.start = state["step"]
        self._seconds_before = state["seconds"]
        if self._validation is not None:
            best = folder / BEST
            self._validation.load_state_dict(
                state["validation"], read_weights(best) if best.exists() else None
            )
        self._coverage.load_state_dict(state["processes"][rank()]["coverage"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = read_state(Path(checkpoint))
        tensors = read_weights(Path(checkpoint) / "optimizer.safetensors")
        load_optimizer(self.model, self._inner_optimizer, tensors, state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._scaler is not None:
            self._scaler.load_state_dict(read_state(Path(checkpoint))["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(read_state(Path(checkpoint))["processes"][rank()]["random"])

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return inner

    @property
    def _scaler(self) -> Any:
        return getattr(self.accelerator, "scaler", None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON of a checkpoint: `step`, whether it is `finished`, `seconds` so far, `identity`, and so on."""
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return state


def final_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The trained weights, of a checkpoint of a finished training."""
    best = checkpoint / BEST
    return read_weights(best if best.exists() else checkpoint / WEIGHTS)


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    # Ctrl-C goes to every process, and each worker would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
