"""verl's calls of a reward manager, as its reward loop makes them for verl-omni's images."""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from prefrm.grpo.replays.awaited import Awaited
from prefrm.grpo.replays.replay import Replay, Sample
from prefrm.grpo.verl import VerlReward
from prefrm.winmatrix import Scorer

__all__ = ["drive"]


def drive(replay: Replay, scorer: Scorer, rank: int, **options: Any) -> dict[int, float]:
    """The rewards of the samples of one process, by their numbers.

    Args:
        options: arguments of `VerlReward`.
    """
    if "group_timeout" in replay.settings:
        options["group_timeout"] = replay.settings["group_timeout"]
    workers = [
        VerlReward(Awaited(scorer), group_size=replay.group_size, **options)
        for _ in range(replay.settings.get("num_workers", 1))
    ]
    return asyncio.run(_run(replay, workers, rank))


async def _run(replay: Replay, workers: Sequence[VerlReward], rank: int) -> dict[int, float]:
    rewards: dict[int, float] = {}
    for step in replay.steps:
        samples = [sample for call in step.calls for sample in call.samples[rank]]
        about = {"validate": step.evaluation} if replay.settings.get("meta_info", True) else {}
        uids = _uids(samples, replay.group_size)
        # A rollout that failed has no call; the trainer has no reward of it.
        rewards |= {sample.number: math.nan for sample in samples if sample.absent}
        calls = {
            sample.number: asyncio.create_task(worker(_data(sample, uid, about)))
            for sample, uid, worker in zip(samples, uids, itertools.cycle(workers), strict=False)
            if not sample.absent
        }
        await asyncio.gather(*calls.values())
        rewards |= {number: call.result()["reward_score"] for number, call in calls.items()}
    return rewards


def _uids(samples: Sequence[Sample], size: int) -> list[str]:
    came: Counter[str] = Counter()
    uids = []
    for sample in samples:
        uids.append(f"{sample.prompt} {came[sample.prompt] // size}")
        came[sample.prompt] += 1
    return uids


def _data(sample: Sample, uid: str, about: dict[str, bool]) -> list[SimpleNamespace]:
    """A `DataProto` of one item."""
    return [
        SimpleNamespace(
            batch={"responses": sample.image},
            non_tensor_batch={"uid": uid, "raw_prompt": [{"role": "user", "content": sample.prompt}]},
            meta_info=about,
        )
    ]
