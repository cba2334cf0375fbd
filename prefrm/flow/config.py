"""The settings of one training run of a flow policy, as `prefrm flow` reads them from YAML."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefrm.errors import ConfigError
from prefrm.flow.methods import method
from prefrm.flow.settings import Method, with_settings
from prefrm.rewards import REWARDS

__all__ = [
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


def _require_positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise ConfigError(f"{name} must be positive and finite; received {getattr(settings, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The pipeline that is trained, and its LoRA adapter.

    Attributes:
        model: a folder, a repository of the Hub (`org/name[@revision]`), or a shipped policy's name.
        dtype: of its weights; the adapter's are float32.
        steps: T, of a rollout.
        guidance: scale of classifier-free guidance in rollouts and updates; null turns it off, or leaves the
            embedded guidance of FLUX.1-dev as it is.
        arguments: further ones of each call, such as {height: 512, width: 512}.
        options: further keywords of `from_pretrained`, such as {text_encoder_3: null}.
        rank, alpha: of the adapter (arXiv 2106.09685), which is scaled by alpha / rank.
        targets: suffixes of its layers' names; empty: the projections of the attention layers.
    """

    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    steps: int = 10
    guidance: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 32
    alpha: int = 64
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_positive(self, "rank", "alpha")
        if self.steps < 2:
            raise ConfigError(f"steps must be at least 2; received {self.steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsConfig:
    """What is drawn.

    Attributes:
        world: name of a world (entry point of "prefrm.worlds"), which has prompts and an oracle; or null.
        count: prompts of the world to train on.
        train: without a world, a text file with a prompt in each line.
        held_out: the same, of the prompts of evaluation; null takes those of `train`.
    """

    world: str | None = None
    count: int = 1000
    train: Path | None = None
    held_out: Path | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "count")
        if (self.world is None) == (self.train is None):
            raise ConfigError("set either world or train, a file of prompts")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """A reward.

    Attributes:
        scorer: a bundle or the URL of a judge; or "oracle", the world's own.
        reward: of a judge's win matrix: a name in `prefrm.rewards.REWARDS`.
        weight: in the sum of the rewards.
    """

    scorer: str
    reward: str = "win_rate"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ConfigError(f"reward must be one of {', '.join(REWARDS)}; received {self.reward!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """How much is drawn.

    Attributes:
        prompts: groups of an iteration, over all processes.
        group: K, samples of a prompt.
        batch: images in one call of the pipeline, at most.
    """

    prompts: int = 8
    group: int = 8
    batch: int = 32

    def __post_init__(self) -> None:
        _require_positive(self, "prompts", "batch")
        if self.group < 2:
            raise ConfigError(f"group must be at least 2; received {self.group}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up.

    Attributes:
        iterations: of rollout and update.
        updates: optimizer steps of an iteration, each on an equal part of its groups.
        batch: samples in one forward pass, at most, but for groups that a loss joins.
        lr: learning rate.
        warmup: optimizer steps over which it rises.
        weight_decay: decoupled.
        max_grad_norm: gradients are clipped to this norm.
        ema: decay of the moving average of the weights that is evaluated and saved; null saves the weights.
        precision: "bf16" and "fp16" evaluate the transformer under autocast, in rollouts too.
        gradient_checkpointing: compute activations twice instead of keeping them.
    """

    iterations: int = 100
    updates: int = 1
    batch: int = 32
    lr: float = 3e-4
    warmup: int = 0
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema: float | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "iterations", "updates", "batch", "lr", "max_grad_norm")
        if min(self.warmup, self.weight_decay) < 0 or not 0 <= (self.ema or 0) < 1:
            raise ConfigError("warmup and weight_decay must not be negative, and ema must be in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Held-out prompts with the same seeds before, during and after the training.

    Attributes:
        every: iterations from one evaluation to the next.
        prompts: how many.
        images: of each prompt.
        steps: of the sampler; null is the policy's.
    """

    every: int = 10
    prompts: int = 16
    images: int = 4
    steps: int | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "every", "prompts", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """A run.

    Attributes:
        output: folder of everything that the run writes.
        seed: of every random number.
        device: "auto", the first accelerator or else the CPU; or "cpu". Several processes have one each.
        method: name of a row of `prefrm.flow.methods`.
        settings: sections of the method that differ, such as {objective: {clip: 1.0e-3}}.
        judge: a scorer whose win rate is the reward, as rewards.judge.scorer would be.
        rewards: by name.
        held_out: further rewards, that only evaluate.
        features: a vision transformer for diversity and maps over pixels, such as facebook/dinov2-small;
            null takes mean colors in a grid.
        evaluation: null leaves it out.
        checkpoint_every: iterations from one checkpoint to the next.
        report_to: trackers of accelerate, such as tensorboard or wandb.
    """

    output: Path
    policy: PolicyConfig
    prompts: PromptsConfig
    method: str
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    judge: str | None = None
    rewards: Mapping[str, RewardConfig] = field(default_factory=dict)
    held_out: Mapping[str, RewardConfig] = field(default_factory=dict)
    features: str | None = None
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)
    checkpoint_every: int = 10
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_positive(self, "checkpoint_every")
        row = self.row()
        if row.objective.kind == "gradient" and self.judge is None:
            raise ConfigError(f"method {self.method} follows a judge's gradient; set judge to a bundle")
        if not (row.intrinsic or self.all_rewards()):
            raise ConfigError("there is no reward; set judge to a bundle or the URL of a server")
        if self.rollout.prompts % self.optim.updates:
            raise ConfigError(
                f"optim.updates {self.optim.updates} must divide rollout.prompts {self.rollout.prompts}"
            )

    def row(self) -> Method:
        """The method with its settings. Raises `ConfigError` where they are wrong."""
        return with_settings(method(self.method), self.settings)

    def all_rewards(self) -> dict[str, RewardConfig]:
        """Those that train, by name."""
        judge = {} if self.judge is None else {"judge": RewardConfig(scorer=self.judge)}
        return judge | dict(self.rewards)
