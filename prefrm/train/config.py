"""The settings of one training run, as `prefrm train` reads them from YAML."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prefrm.manifest.spec import JudgeSpec

__all__ = [
    "TRACKERS",
    "AdapterConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "MixConfig",
    "OptimConfig",
    "TrainConfig",
]

TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """One more dataset to learn from.

    Attributes:
        path: a dataset folder, or hf://org/name[@revision].
        weight: > 0; groups are drawn from the datasets in proportion to their weights.
        train: the split that the judge learns from.
    """

    path: Path
    weight: float = 1.0
    train: str = "train"

    def __post_init__(self) -> None:
        _check_weight(self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which preference datasets, and which of their splits serve for what.

    Attributes:
        path: a dataset folder, as `prefrm data build` writes it, or hf://org/name[@revision].
        train: the split that the judge learns from.
        validation: the split that the calibration is fitted on; null leaves the judge uncalibrated.
        test: the split that the bundle's held-out metrics come from; null leaves them out.
        weight: > 0; how often groups are drawn from this dataset, relative to those of `mix`.
        mix: further datasets to learn from; validation and test are of the first one alone.
        stream: read the training data lazily, where it does not fit into memory or onto the disk twice.
        shuffle_buffer: of a stream, how many groups wait in memory; the next one is drawn from them.
        num_workers: processes, beside each that trains, that decode and prepare images ahead of the step;
            0 does it in between steps. Changes no result.
    """

    path: Path
    train: str = "train"
    validation: str | None = "validation"
    test: str | None = "test"
    weight: float = 1.0
    mix: tuple[MixConfig, ...] = ()
    stream: bool = False
    shuffle_buffer: int = 256
    num_workers: int = 0

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if self.num_workers < 0:
            raise ValueError(f"num_workers must not be negative; received {self.num_workers}")
        if self.shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer must be at least 1; received {self.shuffle_buffer}")
        if self.train in (self.validation, self.test) or (self.test and self.test == self.validation):
            raise ValueError(
                f"train, validation and test must be different splits; received "
                f"{self.train!r}, {self.validation!r} and {self.test!r}"
            )


def _check_weight(weight: float) -> None:
    if not 0 < weight < math.inf:
        raise ValueError(f"weight must be positive and finite; received {weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """LoRA (arXiv 2106.09685) on the linear layers of the language model; with `judge.quantize`, QLoRA.

    Attributes:
        rank: inner width of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: in [0, 1), on the adapter's input.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "rank must be at least 1, alpha positive and dropout in [0, 1); received "
                f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine decay to zero.

    Attributes:
        steps: optimizer steps.
        batch_size: groups on one device in one forward pass.
        accumulation: forward passes of each device in one optimizer step. The loss is the weighted mean over
            all comparisons of the step, so it is as if they were one larger batch.
        pairs_per_group: the most comparisons of a group that a step reads; another sample without replacement
            in each step. Null reads all. A verdict is shown each of them in both presentation orders.
        lr: peak learning rate.
        warmup: share of the steps, in [0, 1), over which the rate rises.
        weight_decay: decoupled weight decay of the matrices.
        max_grad_norm: gradients are clipped to this norm.
        precision: "bf16" and "fp16" run the forward pass under autocast (arXiv 1710.03740); weights stay of
            their own type, the run's `dtype`, which "fp16" needs to be float32.
        gradient_checkpointing: compute activations twice instead of keeping them: less memory, more time.
    """

    steps: int = 200
    batch_size: int = 8
    accumulation: int = 1
    pairs_per_group: int | None = None
    lr: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.pairs_per_group is not None and self.pairs_per_group < 1:
            raise ValueError(f"pairs_per_group must be at least 1; received {self.pairs_per_group}")
        for name in ("steps", "batch_size", "accumulation", "lr", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; received {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and not negative; received {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1); received {self.warmup}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, from which an interrupted run continues.

    Attributes:
        save_every: number of steps from one checkpoint to the next; there is one at the end, too.
        keep: number of the newest checkpoints that are kept while the run lasts.
    """

    save_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        if self.save_every < 1 or self.keep < 1:
            raise ValueError(
                f"save_every and keep must be at least 1; received {self.save_every} and {self.keep}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Validation during training.

    Attributes:
        every: steps from one validation to the next; there is one after the last step, too.
        patience: early stopping after this number of validations without a lower log loss, each under its own
            best calibration; the weights of the lowest one are exported. Null trains to the end.
        groups: number of groups of the validation split; null takes all.
    """

    every: int = 50
    patience: int | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "patience", "groups"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; received {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run: a judge, its data, how it learns, and where the results go.

    Attributes:
        output: the run's folder: `bundle/`, `metrics.jsonl`, and the evaluation's report.
        judge: the base model and the choices that make the judge.
        data: the preference dataset.
        adapter: LoRA, or null to train every weight.
        optim: the optimizer.
        checkpoint: from which an interrupted run continues.
        evaluation: validation during training, or null for none.
        report_to: experiment trackers that also get the metrics, a name or a list of tensorboard, trackio and
            wandb; "all" for those that are installed, "none" for none.
        export: "merged" writes a self-contained bundle, "adapter" one that needs the base model to load.
        license: of the bundle, as the Hub names it, such as "apache-2.0"; stands in the model card.
        device: "auto", or a torch device.
        dtype: the floating-point type of the backbone, as in `Judge.from_base`.
        seed: in [0, 2**32), of initialisation, shuffling and dropout.
    """

    output: Path
    judge: JudgeSpec
    data: DataConfig
    adapter: AdapterConfig | None = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig | None = None
    report_to: str | tuple[str, ...] = "none"
    export: Literal["merged", "adapter"] = "merged"
    license: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # What numpy's generator accepts.
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32); received {self.seed}")
        if unknown := [name for name in self.trackers if name not in (*TRACKERS, "all")]:
            raise ValueError(
                f"report_to must be a list of {', '.join(TRACKERS)}, or all, or none; received {unknown[0]!r}"
            )
        if self.judge.quantize is not None and self.adapter is None:
            raise ValueError(
                f"judge.quantize={self.judge.quantize} needs an adapter, since the weights that it stores "
                "cannot learn, and adapter is null; set one, or leave judge.quantize out"
            )
        if self.evaluation is not None and self.data.validation is None:
            raise ValueError("evaluation needs a validation split, and data.validation is null")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `report_to`; none of "none"."""
        names = (self.report_to,) if isinstance(self.report_to, str) else self.report_to
        return tuple(name for name in names if name != "none")
