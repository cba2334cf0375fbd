"""flow_grpo's calls of its rewards, as its training scripts make them."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from prefrm.grpo.flow import FlowGRPOReward
from prefrm.grpo.replays.replay import SHADES, Call, Replay
from prefrm.winmatrix import Scorer

__all__ = ["drive"]


def drive(replay: Replay, scorer: Scorer, rank: int, **options: Any) -> dict[int, float]:
    """The rewards of the samples of one process, by their numbers.

    Args:
        options: arguments of `FlowGRPOReward`.
    """

    delays = {
        call.samples[rank][0].number: call.delay_s[rank] for step in replay.steps for call in step.calls
    }

    def another(images: Any, prompts: Any, metadata: Any) -> tuple[list[float], dict[str, Any]]:
        time.sleep(delays[round(float(images[0, -1, -1, -1]) * (SHADES - 1))])
        return [0.0] * len(prompts), {}

    # A table of rewards for training, and another of the same entries for evaluation.
    tables = [
        _multi_score(
            {"another": another, "win_rate": FlowGRPOReward(scorer, group_size=replay.group_size, **options)}
        )
        for _ in range(2)
    ]
    rewards: dict[int, float] = {}
    with ThreadPoolExecutor(max_workers=replay.threads) as executor:
        for step in replay.steps:
            waiting: list[tuple[Call, Future[dict[str, Any]]]] = []
            for call in step.calls:
                samples = call.samples[rank]
                future = executor.submit(
                    tables[step.evaluation],
                    np.array([sample.image for sample in samples]),
                    [sample.prompt for sample in samples],
                    [sample.metadata for sample in samples],
                    only_strict=not step.evaluation,
                )
                waiting.append((call, future))
                if step.evaluation:
                    future.result()
            for call, future in waiting:
                scores = future.result()["win_rate"]
                rewards |= {
                    sample.number: float(one) for sample, one in zip(call.samples[rank], scores, strict=True)
                }
    return rewards


def _multi_score(score_fns: Mapping[str, Callable[..., Any]]) -> Callable[..., dict[str, Any]]:
    """Rewards in the order of their names, as an `ml_collections.ConfigDict` has them."""

    def _fn(
        images: Any, prompts: Any, metadata: Any, ref_images: Any = None, only_strict: bool = True
    ) -> Any:
        return {name: score_fns[name](images, prompts, metadata)[0] for name in sorted(score_fns)}

    return _fn
