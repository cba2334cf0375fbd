"""The settings of one training run, as `prefrm train` reads them from YAML."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from prefrm.config import Bounded, Bounds, Count, Natural, NonNegative, Positive, check_bounds
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

Below1 = Annotated[float, Bounds(0, math.nextafter(1, 0), "in [0, 1)")]
# What numpy's generator accepts.
Seed = Annotated[int, Bounds(0, 2**32 - 1, "in [0, 2**32)")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig(Bounded):
    """One more dataset to learn from.

    Attributes:
        path: a dataset folder, or hf://org/name[@revision].
        weight: > 0; groups are drawn from the datasets in proportion to their weights.
        train: the split that the judge learns from.
    """

    path: Path
    weight: Positive = 1.0
    train: str = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(Bounded):
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
    weight: Positive = 1.0
    mix: tuple[MixConfig, ...] = ()
    stream: bool = False
    shuffle_buffer: Count = 256
    num_workers: Natural = 0

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.train in (self.validation, self.test) or (self.test and self.test == self.validation):
            raise ValueError(
                f"train, validation and test must be different splits; received "
                f"{self.train!r}, {self.validation!r} and {self.test!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig(Bounded):
    """LoRA (arXiv 2106.09685) on the linear layers of the language model; with `judge.quantize`, QLoRA.

    Attributes:
        rank: inner width of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: in [0, 1), on the adapter's input.
    """

    rank: Count = 16
    alpha: Count = 32
    dropout: Below1 = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig(Bounded):
    """AdamW with a linear warm-up and then a cosine decay to zero, or a constant rate.

    Attributes:
        steps: optimizer steps.
        batch_size: groups on one device in one forward pass.
        accumulation: forward passes of each device in one optimizer step. The loss is the weighted mean over
            all comparisons of the step, so it is as if they were one larger batch.
        pairs_per_group: the most comparisons of a group that a step reads; another sample without replacement
            in each step. Null reads all. A verdict is shown each of them in both presentation orders.
        lr: peak learning rate.
        warmup: share of the steps, in [0, 1), over which the rate rises.
        schedule: what the rate does after that: "cosine" decays to zero, "constant" stays at the peak.
        weight_decay: decoupled weight decay of the matrices.
        max_grad_norm: gradients are clipped to this norm.
        precision: "bf16" and "fp16" run the forward pass under autocast (arXiv 1710.03740); weights stay of
            their own type, the run's `dtype`, which "fp16" needs to be float32.
        gradient_checkpointing: compute activations twice instead of keeping them: less memory, more time.
    """

    steps: Count = 200
    batch_size: Count = 8
    accumulation: Count = 1
    pairs_per_group: Count | None = None
    lr: Positive = 2e-4
    warmup: Below1 = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    gradient_checkpointing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig(Bounded):
    """Checkpoints, from which an interrupted run continues.

    Attributes:
        save_every: number of steps from one checkpoint to the next; there is one at the end, too.
        keep: number of the newest checkpoints that are kept while the run lasts.
    """

    save_every: Count = 100
    keep: Count = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(Bounded):
    """Validation during training.

    Attributes:
        every: steps from one validation to the next; there is one after the last step, too.
        patience: early stopping after this number of validations without a lower log loss, each under its own
            best calibration; the weights of the lowest one are exported. Null trains to the end.
        groups: number of groups of the validation split; null takes all.
    """

    every: Count = 50
    patience: Count | None = None
    groups: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Bounded):
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
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_bounds(self)
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
