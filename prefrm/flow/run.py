"""One training run of a flow policy, from its settings to an adapter and a report.

output/lora/         the adapter in diffusers' format: `pipe.load_lora_weights(output / "lora")`
output/checkpoints/  from which `resume` continues; removed once the run is over
output/groups/       groups of the last iterations, as `prefrm.group_log` reads them
and the files of `prefrm.flow.report`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from prefrm.checkpoints import Checkpoints
from prefrm.config import to_mapping
from prefrm.differentiable import DifferentiableScorer
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.flow.config import ORACLE, FlowConfig, PromptsConfig, RewardConfig
from prefrm.flow.features import features, vision_features
from prefrm.flow.losses import Losses
from prefrm.flow.pipelines import Policy, load_pipeline
from prefrm.flow.report import Evaluation, summary, write_report
from prefrm.flow.rollout import Sampler
from prefrm.flow.settings import Rollout
from prefrm.flow.trainer import Trainer, adapters
from prefrm.group_log import GroupLog
from prefrm.jsonlines import JsonLines
from prefrm.progress import track
from prefrm.resources import Resources
from prefrm.rewards.samples import Pointwise, Reward, WinRates
from prefrm.winmatrix import Scorer
from prefrm.worlds import World, load_world

__all__ = ["OpenGradient", "OpenScorer", "run"]

OpenScorer = Callable[[str], AbstractContextManager[Scorer]]
OpenGradient = Callable[[str], DifferentiableScorer]

# Timeout of collectives: the other processes wait for the first one, which alone evaluates.
TIMEOUT = timedelta(hours=24)


def run(
    config: FlowConfig,
    open_scorer: OpenScorer,
    *,
    open_gradient: OpenGradient | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train, evaluate and write everything; returns what report.json holds, {} outside the first process.

    Args:
        config: the settings.
        open_scorer: opens the scorer that a name stands for, such as `prefrm.scorers.open_scorer`.
        open_gradient: opens the differentiable scorer that a name stands for, such as
            `prefrm.scorers.gradients.open_gradient`; for methods that follow a judge's gradient.
        resume: continue from the newest checkpoint, if there is one.

    Raises:
        ConfigError: a setting is wrong, the pipeline is not a flow policy, or the training diverged.
        BundleError, ScoringError: of a scorer.
    """
    checkpoints = Checkpoints(config.output / "checkpoints", keep=1)
    if (config.output / "report.json").exists():
        raise ConfigError(f"{config.output} holds a finished run; choose another output, or delete it")
    if not resume:
        checkpoints.require_none()
    require_writable_folder(config.output, "output")
    config.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, Resources() as resources:
        accelerator = _accelerator(config)
        # Before anything else is loaded.
        differentiable = _differentiable(config, open_gradient)
        world, train, held_out = _prompts(config.prompts, config.seed)
        rewards = _opened(config.all_rewards(), world, open_scorer, stack)
        trainer = _trainer(config, accelerator, rewards, train[0], differentiable)
        path = checkpoints.newest() if resume else None
        done = 0 if path is None else trainer.load(path, to_mapping(config))
        evaluation, wanted = None, config.evaluation
        if wanted is not None and accelerator.is_main_process:
            oracle = {} if world is None else {ORACLE: RewardConfig(scorer=ORACLE)}
            others = _opened({**config.held_out, **oracle}, world, open_scorer, stack)
            steps = wanted.steps or config.policy.steps
            evaluation = Evaluation(
                sampler=replace(trainer.sampler, rule=Rollout(), group=wanted.images, steps=steps),
                prompts=held_out[: wanted.prompts],
                rewards={**rewards, **others},
                folder=config.output / "samples",
            )
        lines = _train(config, trainer, train, evaluation, checkpoints, done)
        facts = {
            "method": config.method,
            "seed": config.seed,
            **summary(lines),
            "seconds": {"total": resources.total_seconds},
            "peak_rss_mb": resources.peak_rss_mb,
        }
        if accelerator.is_main_process:
            trainer.policy.save_lora(config.output / "lora", trainer.kept)
            write_report(config.output, facts, lines)
            checkpoints.remove()
        accelerator.wait_for_everyone()
        accelerator.end_training()
    return facts if accelerator.is_main_process else {}


def _train(
    config: FlowConfig,
    trainer: Trainer,
    prompts: Sequence[str],
    evaluation: Evaluation | None,
    checkpoints: Checkpoints,
    done: int,
) -> list[dict[str, float]]:
    """The iterations that are left, on every process; returns the lines of metrics of all.

    The first process writes files.
    """
    accelerator, total = trainer.accelerator, config.optim.iterations
    first, every = accelerator.is_main_process, config.evaluation.every if config.evaluation else total
    metrics = JsonLines(config.output / "metrics.jsonl" if first else None, key="iteration", done=done)

    def record(iteration: int, logs: Mapping[str, float]) -> None:
        finite = {name: value for name, value in logs.items() if math.isfinite(value)}
        metrics.add({"iteration": iteration, **finite})

    if evaluation is not None and all(line["iteration"] for line in metrics.lines):
        # Also where a resumed run is the first to evaluate.
        record(0, evaluation.before())
    with track("flow", total, done) as tracker:
        for n in range(done, total):
            logs = trainer.iteration(n, _of_iteration(prompts, config.rollout.prompts, config.seed, n))
            last = n + 1 == total
            if evaluation is not None and (last or (n + 1) % every == 0):
                logs |= evaluation.now(n + 1, trainer.kept)
            record(n + 1, logs)
            if first and (last or (n + 1) % config.checkpoint_every == 0):
                with checkpoints.writing(n + 1) as folder:
                    trainer.save(folder, n + 1, to_mapping(config))
            accelerator.log(logs, step=n + 1)
            accelerator.wait_for_everyone()
            shown = {name.split("/")[1]: v for name, v in logs.items() if name.startswith("reward/")}
            tracker(n + 1, ", ".join(f"{k} {v:.4f}" for k, v in (shown | {"loss": logs["loss"]}).items()))
    return metrics.lines


def _accelerator(config: FlowConfig) -> Accelerator:
    try:
        accelerator = Accelerator(
            mixed_precision=config.optim.precision,
            cpu=config.device == "cpu",
            log_with=[*config.report_to] or None,
            project_dir=config.output,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
        if config.report_to:
            accelerator.init_trackers("prefrm-flow")
    except (ValueError, ImportError) as error:
        raise ConfigError(f"optim.precision or report_to is not available here: {error}") from error
    if config.rollout.prompts % (count := accelerator.num_processes):
        raise ConfigError(
            f"rollout.prompts {config.rollout.prompts} must be a multiple of the {count} processes"
        )
    return accelerator


def _trainer(
    config: FlowConfig,
    accelerator: Accelerator,
    rewards: Mapping[str, Reward],
    prompt: str,
    differentiable: DifferentiableScorer | None,
) -> Trainer:
    method, settings, size = config.row(), config.policy, config.rollout
    pipe = load_pipeline(settings.model, getattr(torch, settings.dtype), settings.options)
    pipe.to(accelerator.device)
    # Every process draws the same adapter.
    torch.manual_seed(config.seed)
    policy = Policy(pipe, settings, adapters(method, config.optim))
    policy.probe(prompt)
    if config.optim.gradient_checkpointing:
        policy.transformer.enable_gradient_checkpointing()
    keep_path = method.objective.through_sampler
    return Trainer(
        losses=Losses(
            policy=policy,
            method=method,
            batch=config.optim.batch,
            seed=config.seed,
            encode=vision_features(config.features, accelerator.device) if config.features else features,
            differentiable=differentiable,
        ),
        accelerator=accelerator,
        sampler=Sampler(
            policy, method.rollout, size.group, size.batch, config.seed, policy.steps, keep_path=keep_path
        ),
        rewards=rewards,
        weights={name: reward.weight for name, reward in config.all_rewards().items()},
        settings=config.optim,
        log=GroupLog(config.output / "groups", most_groups=config.log_groups) if config.log_groups else None,
    )


def _differentiable(config: FlowConfig, open_gradient: OpenGradient | None) -> DifferentiableScorer | None:
    if not config.row().objective.differentiates:
        return None
    if open_gradient is None:
        raise ConfigError(f"method {config.method} follows a judge's gradient; pass open_gradient to run")
    assert config.judge is not None
    return open_gradient(config.judge)


def _opened(
    rewards: Mapping[str, RewardConfig], world: World | None, open_scorer: OpenScorer, stack: ExitStack
) -> dict[str, Reward]:
    made: dict[str, Reward] = {}
    for name, reward in rewards.items():
        if reward.scorer != ORACLE:
            made[name] = WinRates(stack.enter_context(open_scorer(reward.scorer)), reward.reward)
        elif world is not None:
            made[name] = Pointwise(world.oracle)
        else:
            raise ConfigError(f"rewards.{name}: the scorer {ORACLE!r} needs a world; set prompts.world")
    return made


def _prompts(config: PromptsConfig, seed: int) -> tuple[World | None, list[str], list[str]]:
    """The world, if there is one, and the prompts to train on and to evaluate."""
    if config.train is not None:
        return None, _lines(config.train), _lines(config.held_out or config.train)
    assert config.world is not None
    world = load_world(config.world, "prompts.world")
    return world, world.prompts("train", config.count, seed), world.prompts("test", config.count, seed)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts: {path} cannot be read: {error}") from error
    if not any(lines):
        raise ConfigError(f"prompts: {path} has no prompt; write one in each line")
    return [line for line in lines if line]


def _of_iteration(prompts: Sequence[str], count: int, seed: int, n: int) -> list[str]:
    """The next prompts: all of them in a shuffled order, again and again."""
    turns = [divmod(place, len(prompts)) for place in range(n * count, (n + 1) * count)]
    orders = {turn: np.random.default_rng([seed, turn]).permutation(len(prompts)) for turn, _ in turns}
    return [prompts[orders[turn][place]] for turn, place in turns]
