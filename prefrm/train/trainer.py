"""The training loop: `transformers.Trainer` with a judge's loss, its own order of groups and checkpoints.

The checkpoints of `transformers` are pickles; these are safetensors and JSON (`prefrm.train.state`):

weights.safetensors, optimizer.safetensors   see there
best.safetensors     the weights of the lowest validation loss so far, with early stopping
state.json           the step, the run's identity, the seconds so far, the scheduler, and each process's
                     random numbers and coverage of the data
trainer_state.json   the state of `transformers.Trainer`
"""

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from prefrm.checkpoints import Checkpoints
from prefrm.errors import ConfigError
from prefrm.judge import Judge
from prefrm.judge.weights import read_weights
from prefrm.train.collate import Coverage, blank_batch
from prefrm.train.distributed import gather, is_first, processes, rank, sharding, total, wait
from prefrm.train.state import (
    average_gradients,
    gather_optimizer,
    gather_weights,
    load_optimizer,
    load_weights,
    random_state,
    set_random_state,
)
from prefrm.train.validation import Validation

__all__ = ["JudgeTrainer", "final_weights", "read_state"]

WEIGHTS = "weights.safetensors"
BEST = "best.safetensors"


class JudgeTrainer(Trainer):
    """Minimises the judge's loss over batches of `GroupCollator`.

    The loss of a step is the weighted mean over all comparisons of the step, however many forward
    passes and processes share them.

    Trains on the judge's device and on no other: `transformers` alone would take the first accelerator
    and split each batch over all of them, which a `JudgeBatch` cannot be.

    Args:
        model: the judge.
        args: of `transformers`.
        checkpoints: where they go.
        validation: called after each step; its metrics are logged and its state is kept in every checkpoint.
        identity: of the run, as JSON; it is kept in every checkpoint.
        num_workers: number of processes that read and collate batches ahead; with 0, this one does.
        parent: all other arguments are of `Trainer`.

    Attributes:
        coverage: of the batches so far, in this process.
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
        # A judge that is to be sharded is on the CPU until `accelerate` moves it.
        if not sharding():
            args.distributed_state.device = model.device
            # A cached property, which the first line has computed.
            args.__dict__["_setup_devices"] = model.device
        self._checkpoints = checkpoints
        self._validation = validation
        self._identity = dict(identity or {})
        self._num_workers = num_workers
        self.coverage = Coverage()
        self._started = time.monotonic()
        self._seconds_before = 0.0
        super().__init__(model=model, args=args, **parent)
        if validation is not None:
            self.add_callback(validation)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """As `Trainer`, matrices only: a scale that decays is a temperature that drifts."""
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As `Trainer`; of a sharded judge, the head, which is not sharded, has its own parameter group."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self.is_fsdp_enabled:
            head = set(self.model.head.parameters())
            for group in list(optimizer.param_groups):
                apart = [p for p in group["params"] if p in head]
                if apart and len(apart) < len(group["params"]):
                    group["params"] = [p for p in group["params"] if p not in head]
                    optimizer.param_groups.append({**group, "params": apart})
        return optimizer

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As `Trainer`; of a sharded judge, average the gradients of what is not sharded."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.is_fsdp_enabled and self.accelerator.sync_gradients:
            average_gradients(self.model)
        return loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process's share.

        This process draws, and workers read and collate, so their number changes neither batches nor their
        order. The generator keeps the loader from drawing global random numbers.
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
        batches = [self.coverage.add(next(epoch_iterator)) for _ in range(num_batches)]
        return batches, total(torch.stack([batch["weight_N"].sum() for batch in batches]).sum().to(device))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The batch's part of the mean loss of the step, in nats; `num_items_in_batch` is the step's weight.

        A batch of which nothing could be read has the loss 0 and no gradient; where that is a whole step, the
        optimizer's momentum and its decay still move the weights.
        """
        if inputs["batch"] is None:
            # Where processes share a model, all of them run it.
            return 0.0 * model(blank_batch(self.model.processor)).sum()
        loss = self.model.loss(model(inputs["batch"]), inputs["p_N"], inputs["weight_N"])
        # Gradients are averaged over processes, and the loss that is logged, too.
        return loss * (inputs["weight_N"].sum() / num_items_in_batch * processes())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`, with validation metrics and the epochs of the data: to the loop, a run is one.

        Raises:
            ConfigError: a number is not finite; the training cannot recover.
        """
        # The scaler skips such a step and lowers its scale; nothing has diverged.
        if self.accelerator.scaler is not None and not math.isfinite(logs.get("grad_norm", 0.0)):
            del logs["grad_norm"]
        if self._validation is not None and "loss" in logs:
            logs |= self._validation.metrics
        for name, value in logs.items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"the training diverged: {name} is {value} at step {self.state.global_step}; "
                    "lower optim.lr, lengthen optim.warmup, or set dtype to float32"
                )
        self.state.epoch = self.train_dataset.epochs(self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        """Collective: all processes gather, and the first one keeps and writes."""
        weights = gather_weights(self.model, keep=is_first())
        optimizer, groups = gather_optimizer(self.model, self.optimizer.optimizer, keep=is_first())
        state = {
            "step": self.state.global_step,
            "finished": self.control.should_training_stop,
            "seconds": self._seconds_before + time.monotonic() - self._started,
            "identity": self._identity,
            "scheduler": self.lr_scheduler.state_dict(),
            "optimizer": groups,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "validation": None if self._validation is None else self._validation.state_dict(),
            "processes": gather({"random": random_state(), "coverage": self.coverage.state_dict()}),
        }
        if is_first() and self._checkpoints is not None:
            with self._checkpoints.writing(self.state.global_step) as folder:
                save_file(weights, folder / WEIGHTS)
                save_file(optimizer, folder / "optimizer.safetensors")
                if self._validation is not None and self._validation.best_weights is not None:
                    save_file(self._validation.best_weights, folder / BEST)
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
        self.coverage.load_state_dict(state["processes"][rank()]["coverage"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = read_state(Path(checkpoint))
        tensors = read_weights(Path(checkpoint) / "optimizer.safetensors")
        load_optimizer(self.model, self.optimizer.optimizer, tensors, state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(read_state(Path(checkpoint))["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(read_state(Path(checkpoint))["processes"][rank()]["random"])


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
