"""slime's calls of a custom reward function, as its rollout makes them."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from prefrm.grpo.group_calls import SlimeReward
from prefrm.grpo.replays.awaited import Awaited
from prefrm.grpo.replays.replay import Replay, Sample
from prefrm.winmatrix import Scorer

__all__ = ["drive"]

TEMPLATE = "<|im_start|>system\nYou draw.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def drive(replay: Replay, scorer: Scorer, rank: int, **options: Any) -> dict[int, float]:
    """The rewards of the samples of one process, by their numbers.

    Args:
        options: arguments of `SlimeReward`.
    """
    if replay.settings.get("to_prompt") == "metadata":
        options["to_prompt"] = lambda sample: sample.metadata["prompt"]
    reward = SlimeReward(Awaited(scorer), lambda sample: sample.metadata["image"], **options)
    rewards: dict[int, float] = {}
    for step in replay.steps:
        groups = [call.samples[rank] for call in step.calls]
        rewards |= asyncio.run(_rollout(replay, reward, groups))
    return rewards


async def _rollout(replay: Replay, reward: Any, groups: Sequence[Sequence[Sample]]) -> dict[int, float]:
    tasks = [asyncio.create_task(_group(replay, reward, group)) for group in groups]
    return {number: value for task in tasks for number, value in (await task).items()}


async def _group(replay: Replay, reward: Any, group: Sequence[Sample]) -> dict[int, float]:
    settings = replay.settings
    args = SimpleNamespace(
        group_rm=not settings.get("single"), apply_chat_template=settings.get("apply_chat_template", False)
    )
    samples = [_sample(sample, settings) for sample in group]
    if not args.group_rm:
        rewards = [await reward(args, sample) for sample in samples]
    else:
        rewards = await reward(args, [[one, one] for one in samples] if settings.get("several") else samples)
    if settings.get("filtered"):
        # As check_reward_nonzero_std, which takes floats.
        np.std(np.array(rewards, dtype=np.float64))
    return {sample.number: float(value) for sample, value in zip(group, rewards, strict=True)}


def _sample(sample: Sample, settings: Any) -> SimpleNamespace:
    prompt: Any = sample.prompt
    if settings.get("apply_chat_template"):
        prompt = TEMPLATE.format(prompt)
    elif settings.get("conversation"):
        prompt = [{"role": "user", "content": prompt}]
    return SimpleNamespace(
        prompt=prompt, response="", reward=None, metadata={"prompt": sample.prompt, "image": sample.image}
    )
