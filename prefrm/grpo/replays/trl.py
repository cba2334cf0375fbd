"""TRL's calls of a reward function, as `GRPOTrainer` and the loop of `AsyncGRPOTrainer` make them."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

from prefrm.grpo.replays.awaited import Awaited
from prefrm.grpo.replays.replay import Call, Replay, Step
from prefrm.grpo.trl import AsyncPreferenceReward, PreferenceReward
from prefrm.winmatrix import Scorer

__all__ = ["drive"]


class _Trainer:
    """What a reward can see of a `GRPOTrainer`, through the method that it is passed."""

    def __init__(self, num_generations: int) -> None:
        self.num_generations = num_generations
        self.num_generations_eval = 1
        self.model = SimpleNamespace(training=True)

    def log_metric(self, name: str, value: float) -> None:
        """Takes a metric."""


def drive(replay: Replay, scorer: Scorer, rank: int, **options: Any) -> dict[int, float]:
    """The rewards of the samples of one process, by their numbers.

    Args:
        options: arguments of `PreferenceReward` or `AsyncPreferenceReward`.
    """
    trainer = None if replay.settings.get("trainer") == "async_grpo" else _Trainer(replay.group_size)
    if trainer is None:
        options["num_generations"] = replay.group_size
    images = {sample.number: sample.image for sample in replay.samples}

    def to_image(completion: Any, **columns: Any) -> Any:
        return images[int(completion if isinstance(completion, str) else completion[0]["content"])]

    reward: Any
    if replay.settings.get("asynchronous"):
        reward = AsyncPreferenceReward(Awaited(scorer), to_image, **options)
    else:
        reward = PreferenceReward(scorer, to_image, **options)
    rewards: dict[int, float] = {}
    for step in replay.steps:
        for call in step.calls:
            values = _called(reward, _arguments(replay, step, call, rank, trainer), call.delay_s[rank])
            for sample, value in zip(call.samples[rank], values, strict=True):
                rewards[sample.number] = math.nan if value is None else value
    return rewards


def _arguments(replay: Replay, step: Step, call: Call, rank: int, trainer: _Trainer | None) -> dict[str, Any]:
    samples = call.samples[rank]
    prompts: list[Any] = [sample.prompt for sample in samples]
    completions: list[Any] = [str(sample.number) for sample in samples]
    if replay.settings.get("conversation"):
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
        completions = [[{"role": "assistant", "content": completion}] for completion in completions]
    arguments: dict[str, Any] = {
        "prompts": prompts,
        "completions": completions,
        "completion_ids": [[1]] * len(samples),
        "source": [sample.source for sample in samples],
    }
    if trainer is not None:
        trainer.model.training = not step.evaluation
        arguments |= {"trainer_state": None, "log_extra": None, "log_metric": trainer.log_metric}
    return arguments


def _called(reward: Any, arguments: dict[str, Any], delay_s: float) -> list[float | None]:
    if not isinstance(reward, AsyncPreferenceReward):
        return list(reward(**arguments))

    async def gathered() -> list[float | None]:
        values, _ = await asyncio.gather(reward(**arguments), asyncio.sleep(delay_s))
        return list(values)

    return asyncio.run(gathered())
