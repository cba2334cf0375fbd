"""One training run of a flow policy, from its settings to adapters and a report.

output/lora/         the adapter in diffusers' format: `pipe.load_lora_weights(output / "lora")`
output/checkpoints/  what `resume` continues from; gone once the run is over
and the files of `prefrm.flow.report`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from prefrm.checkpoints import Checkpoints
from prefrm.config import to_mapping
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.flow.checkpoints import load_checkpoint, save_checkpoint
from prefrm.flow.config import ORACLE, FlowConfig, PromptsConfig, RewardConfig
from prefrm.flow.gradients import DifferentiableScorer
from prefrm.flow.pipelines import LORA_TARGETS, Policy, load_pipeline
from prefrm.flow.report import Evaluation, Metrics, write_report
from prefrm.flow.rollout import Sampler
from prefrm.flow.scoring import Pointwise, Reward, Scoring, WinRates, features, vision_features
from prefrm.flow.trainer import Trainer
from prefrm.progress import track
from prefrm.resources import Resources
from prefrm.winmatrix import Scorer

__all__ = ["OpenScorer", "run"]

OpenScorer = Callable[[str], AbstractContextManager[Scorer]]

WORLDS = "prefrm.worlds"
# How long processes wait for the first one, which alone evaluates.
PATIENCE = timedelta(hours=24)


def run(
    config: FlowConfig,
    open_scorer: OpenScorer,
    *,
    open_gradient: Callable[[str], DifferentiableScorer] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train, evaluate, and write everything. Returns what report.json holds.

    Args:
        config: the settings.
        open_scorer: the scorer that a name stands for, such as `prefrm.scorers.open_scorer`.
        open_gradient: the same, for methods that follow a judge's gradient.
        resume: continue from the newest checkpoint, if there is one.

    Raises:
        ConfigError: a setting is wrong, the pipeline is no flow policy, or the training diverged.
        BundleError, ScoringError: of a scorer.
    """
    checkpoints = Checkpoints(config.output / "checkpoints", keep=1)
    _check_output(config.output, checkpoints, resume)
    with ExitStack() as stack, Resources() as resources:
        accelerator = Accelerator(
            mixed_precision=config.optim.precision,
            cpu=config.device == "cpu",
            log_with=[*config.report_to] or None,
            project_dir=config.output,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        if config.rollout.prompts % accelerator.num_processes:
            raise ConfigError(
                f"rollout.prompts {config.rollout.prompts} must be a multiple of the "
                f"{accelerator.num_processes} processes"
            )
        if config.report_to:
            accelerator.init_trackers("prefrm-flow")
        world, train, held_out = _prompts(config.prompts, config.seed)
        rewards = _opened(config.all_rewards(), world, open_scorer, stack)
        trainer = _trainer(config, accelerator, rewards, train[0], stack, open_gradient)
        done, path = 0, checkpoints.newest() if resume else None
        if path is not None:
            done = load_checkpoint(path, trainer, to_mapping(config))
        evaluation = None
        if config.evaluation is not None and accelerator.is_main_process:
            rewards |= _opened(config.held_out, world, open_scorer, stack)
            rewards |= {} if world is None else {ORACLE: Pointwise(world.oracle)}
            evaluation = Evaluation(
                trainer.policy,
                held_out[: config.evaluation.prompts],
                images=config.evaluation.images,
                steps=config.evaluation.steps or config.policy.steps,
                batch=config.rollout.batch,
                seed=config.seed,
                rewards=rewards,
                folder=config.output / "samples",
            )
        metrics = _train(config, trainer, train, evaluation, checkpoints, done)
        if not accelerator.is_main_process:
            return {}
        with trainer.averaged():
            trainer.policy.save_lora(config.output / "lora")
        facts = _facts(config, metrics, resources)
        write_report(config.output, facts, metrics)
        checkpoints.remove()
        accelerator.end_training()
    return facts


def _train(
    config: FlowConfig,
    trainer: Trainer,
    prompts: Sequence[str],
    evaluation: Evaluation | None,
    checkpoints: Checkpoints,
    done: int,
) -> Metrics | None:
    """The iterations that are left, on every process; files are the first one's."""
    accelerator, total = trainer.accelerator, config.optim.iterations
    metrics = Metrics(config.output / "metrics.jsonl", done) if accelerator.is_main_process else None
    if metrics is not None and evaluation is not None and not done:
        metrics.add(0, {f"eval/{name}": value for name, value in evaluation.before().items()})
    with track("flow", total, done) as tracker:
        for n in range(done, total):
            logs = trainer.iteration(n, _of_iteration(prompts, config.rollout.prompts, config.seed, n))
            last = n + 1 == total
            if (
                evaluation is not None
                and config.evaluation
                and (last or (n + 1) % config.evaluation.every == 0)
            ):
                with trainer.averaged():
                    logs |= {f"eval/{name}": value for name, value in evaluation.now(n + 1).items()}
            if metrics is not None:
                metrics.add(n + 1, logs)
                if (n + 1) % config.checkpoint_every == 0 or last:
                    with checkpoints.writing(n + 1) as folder:
                        save_checkpoint(folder, trainer, n + 1, to_mapping(config))
            accelerator.log(logs, step=n + 1)
            accelerator.wait_for_everyone()
            shown = [
                f"{name.split('/')[1]} {v:.3f}" for name, v in logs.items() if name.startswith("reward/")
            ]
            tracker(n + 1, ", ".join([*shown, f"loss {logs['loss']:.4f}"]))
    return metrics


def _trainer(
    config: FlowConfig,
    accelerator: Accelerator,
    rewards: Mapping[str, Reward],
    prompt: str,
    stack: ExitStack,
    open_gradient: Callable[[str], DifferentiableScorer] | None,
) -> Trainer:
    method, settings = config.row(), config.policy
    pipe = load_pipeline(settings.model, getattr(torch, settings.dtype), settings.options)
    pipe.to(accelerator.device)
    # Every process draws the same adapter.
    torch.manual_seed(config.seed)
    policy = Policy(
        pipe,
        steps=settings.steps,
        guidance=settings.guidance,
        arguments=settings.arguments,
        rank=settings.rank,
        alpha=settings.alpha,
        targets=settings.targets or LORA_TARGETS,
        adapters=("old",) if method.needs_old else (),
    )
    policy.probe(prompt)
    if config.optim.gradient_checkpointing:
        policy.transformer.enable_gradient_checkpointing()
    scoring = Scoring(rewards)
    stack.callback(scoring.close)
    differentiable = None
    if method.objective.kind == "gradient":
        assert config.judge is not None and open_gradient is not None
        differentiable = open_gradient(config.judge)
    sampler = Sampler(
        policy, method.rollout, group=config.rollout.group, batch=config.rollout.batch, seed=config.seed
    )
    return Trainer(
        policy,
        method,
        accelerator,
        sampler,
        scoring,
        {name: reward.weight for name, reward in config.all_rewards().items()},
        config.optim,
        seed=config.seed,
        differentiable=differentiable,
        encode=features if config.features is None else vision_features(config.features, accelerator.device),
    )


def _opened(
    rewards: Mapping[str, RewardConfig], world: Any, open_scorer: OpenScorer, stack: ExitStack
) -> dict[str, Reward]:
    """By name; a scorer that two rewards name is opened twice."""
    made: dict[str, Reward] = {}
    for name, reward in rewards.items():
        if reward.scorer != ORACLE:
            made[name] = WinRates(stack.enter_context(open_scorer(reward.scorer)), reward.reward)
        elif world is not None:
            made[name] = Pointwise(world.oracle)
        else:
            raise ConfigError(f"rewards.{name}: the scorer {ORACLE!r} is a world's; set prompts.world")
    return made


def _prompts(config: PromptsConfig, seed: int) -> tuple[Any, list[str], list[str]]:
    """The world, if there is one, and prompts to train on and to evaluate."""
    if config.world is None:
        assert config.train is not None
        return None, _lines(config.train), _lines(config.held_out or config.train)
    known = {point.name: point for point in entry_points(group=WORLDS)}
    if config.world not in known:
        raise ConfigError(f"prompts.world must be one of {', '.join(known)}; received {config.world!r}")
    world = known[config.world].load()
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
    places = range(n * count, (n + 1) * count)
    orders = {
        place // len(prompts): np.random.default_rng([seed, place // len(prompts)]).permutation(len(prompts))
        for place in places
    }
    return [prompts[orders[place // len(prompts)][place % len(prompts)]] for place in places]


def _check_output(output: Path, checkpoints: Checkpoints, resume: bool) -> None:
    if (output / "report.json").exists():
        raise ConfigError(f"{output} holds a finished run; choose another output, or delete it")
    if checkpoints.found() and not resume:
        raise ConfigError(
            f"{checkpoints.folder} holds checkpoints of an unfinished run; continue it with --resume, or "
            "delete the folder to start over"
        )
    require_writable_folder(output, "output")
    output.mkdir(parents=True, exist_ok=True)


def _facts(config: FlowConfig, metrics: Metrics | None, resources: Resources) -> dict[str, Any]:
    assert metrics is not None
    evaluated = [line for line in metrics.lines if any(name.startswith("eval/") for name in line)]
    first, last = (
        {name.removeprefix("eval/"): v for name, v in line.items() if name.startswith("eval/")}
        for line in ((evaluated[0], evaluated[-1]) if evaluated else ({}, {}))
    )
    oracle = first.pop(ORACLE, None), last.pop(ORACLE, None)
    return {
        "method": config.method,
        "seed": config.seed,
        "oracle_before": oracle[0],
        "oracle_after": oracle[1],
        "reward_before": first,
        "reward_after": last,
        "iterations": config.optim.iterations,
        "images": int(sum(line.get("images", 0) for line in metrics.lines)),
        "seconds": {"total": resources.total_seconds},
        "peak_rss_mb": resources.peak_rss_mb,
    }
