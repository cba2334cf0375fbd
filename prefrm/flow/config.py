"""The settings of one training run of a flow policy, as `prefrm flow` reads them from YAML."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from prefrm.config import Bounded, Bounds, Count, Natural, NonNegative, Positive, check_bounds
from prefrm.errors import ConfigError
from prefrm.flow.methods import method
from prefrm.flow.settings import Method, with_settings
from prefrm.rewards import REWARDS

__all__ = [
    "LORA_TARGETS",
    "ORACLE",
    "EvaluationConfig",
    "FlowConfig",
    "OptimConfig",
    "PolicyConfig",
    "PromptsConfig",
    "RewardConfig",
    "RolloutConfig",
]

ORACLE = "oracle"
"""The scorer that stands for a world's own."""

LORA_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""Projections of the attention layers, as the transformers of diffusers name them (those of Flow-GRPO)."""

Several = Annotated[int, Bounds(2, math.inf, "at least 2")]
Decay = Annotated[float, Bounds(0, math.nextafter(1, 0), "in [0, 1)")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig(Bounded):
    """The pipeline that is trained, and its LoRA adapter (arXiv 2106.09685)."""

    model: str  # a folder, a repository of the Hub (`org/name[@revision]`), or a shipped policy's name
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of its weights; adapters have float32
    steps: Several = 10  # T, of a rollout
    # Scale of classifier-free guidance in rollouts and updates; null turns it off, or leaves the embedded
    # guidance of FLUX.1-dev as it is.
    guidance: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of each call: {height: 512, width: 512}
    options: Mapping[str, Any] = field(default_factory=dict)  # of from_pretrained: {text_encoder_3: null}
    rank: Count = 32
    alpha: Count = 64  # the adapter is scaled by alpha / rank
    targets: tuple[str, ...] = LORA_TARGETS  # suffixes of the names of its layers


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsConfig(Bounded):
    """Prompts of a world, or of files with a prompt in each line."""

    world: str | None = None  # an entry point of "prefrm.worlds", which has prompts and an oracle
    count: Count = 1000  # prompts of the world to train on
    train: Path | None = None  # a file
    held_out: Path | None = None  # a file of prompts of evaluation; null takes those of `train`

    def __post_init__(self) -> None:
        check_bounds(self)
        if (self.world is None) == (self.train is None):
            raise ConfigError("set either world or train, a file of prompts")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """A reward."""

    scorer: str  # a bundle or the URL of a judge; or "oracle", the world's own
    reward: str = "win_rate"  # of a judge's win matrix: a name in `prefrm.rewards.REWARDS`
    weight: float = 1.0  # in the sum of the rewards

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ConfigError(f"reward must be one of {', '.join(REWARDS)}; received {self.reward!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig(Bounded):
    """Sizes of the rollouts of an iteration."""

    prompts: Count = 8  # groups of an iteration, over all processes
    group: Several = 8  # K, samples of a prompt
    batch: Count = 32  # images in one call of the pipeline, at most, but for the leaves of one tree


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig(Bounded):
    """AdamW with a linear warm-up, and a linear decay where it is wanted."""

    iterations: Count = 100  # of rollout and update
    updates: Count = 1  # optimizer steps of an iteration, each on an equal part of its groups
    batch: Count = 32  # samples in one forward pass, at most, but for a group that a loss joins
    lr: Positive = 3e-4
    warmup: Natural = 0  # optimizer steps over which the learning rate rises
    # "linear": after the warm-up the learning rate falls, to 0 after the last step.
    schedule: Literal["constant", "linear"] = "constant"
    weight_decay: NonNegative = 1e-4  # decoupled
    max_grad_norm: Positive = 1.0  # gradients are clipped to this norm
    ema: Decay | None = None  # decay of the average of the weights that is evaluated and saved; null: none
    precision: Literal["no", "bf16", "fp16"] = "no"  # of autocast, in rollouts too
    gradient_checkpointing: bool = False  # compute activations twice instead of keeping them

    def rate(self, step: int) -> float:
        """The learning rate of an optimizer step, counted from 1."""
        left = self.iterations * self.updates + 1 - step
        fall = left / max(self.iterations * self.updates - self.warmup, 1)
        return self.lr * min(1.0, step / max(self.warmup, 1), fall if self.schedule == "linear" else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(Bounded):
    """Held-out prompts with the same seeds before, during and after the training."""

    every: Count = 10  # iterations from one evaluation to the next
    prompts: Count = 16
    images: Count = 4  # of each prompt
    steps: Count | None = None  # of the sampler; null is the policy's


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig(Bounded):
    """A run."""

    output: Path  # folder of everything that the run writes
    policy: PolicyConfig
    prompts: PromptsConfig
    method: str  # name of a row of `prefrm.flow.methods`
    seed: Natural = 0  # of every random number
    device: Literal["auto", "cpu"] = "auto"  # "auto": the first accelerator, or one for each process
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the method: {objective: {clip: 1.0e-3}}
    judge: str | None = None  # a scorer whose win rate is the reward, as rewards.judge.scorer would be
    rewards: Mapping[str, RewardConfig] = field(default_factory=dict)
    held_out: Mapping[str, RewardConfig] = field(default_factory=dict)  # further rewards, that only evaluate
    # A vision transformer for diversity and maps over pixels, such as facebook/dinov2-small; null takes mean
    # colors in a grid.
    features: str | None = None
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)  # null leaves it out
    checkpoint_every: Count = 10  # iterations
    # Groups of the last iterations that are kept in output/groups, in 512 MiB at most; 0 keeps none.
    log_groups: Natural = 256
    report_to: tuple[str, ...] = ()  # trackers of accelerate, such as tensorboard or wandb

    def __post_init__(self) -> None:
        check_bounds(self)
        row, rollout = self.row(), self.rollout
        if row.objective.differentiates and self.judge is None:
            raise ConfigError(f"method {self.method} follows a judge's gradient; set judge to a bundle")
        if not (row.intrinsic or self.all_rewards()):
            raise ConfigError("no reward is configured; set judge to a bundle or the URL of a server")
        if rollout.prompts % self.optim.updates:
            raise ConfigError(
                f"optim.updates {self.optim.updates} must divide rollout.prompts {rollout.prompts}"
            )
        leaves = math.prod(row.rollout.tree(self.policy.steps))
        group = math.ceil(rollout.group / leaves) * leaves
        # The leaves of one tree are always drawn together.
        if row.objective.within_group and max(rollout.batch, leaves) < group:
            raise ConfigError(
                f"the loss of {self.method} joins the {group} samples of a group, which must be drawn "
                f"together; set rollout.batch to at least {group}; received {rollout.batch}"
            )

    def row(self) -> Method:
        """The method with its settings. Raises `ConfigError` where they are wrong."""
        return with_settings(method(self.method), self.settings)

    def all_rewards(self) -> dict[str, RewardConfig]:
        """Those that train, by name."""
        judge = {} if self.judge is None else {"judge": RewardConfig(scorer=self.judge)}
        return judge | dict(self.rewards)
