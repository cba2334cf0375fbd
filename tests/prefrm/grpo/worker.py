"""One of two processes that share their groups, as `tests.forked.ranks` starts them.

Runs every scenario in turn over a real process group and writes what came of each to FOLDER/RANK.json:
the rewards, or the error; the groups that this process scored; and what it logged.
"""

import asyncio
import json
import os
from datetime import timedelta
from types import SimpleNamespace

import torch.distributed as dist

from prefrm.errors import ServerUnavailableError
from prefrm.group_log import GroupLog
from prefrm.grpo import AsyncPreferenceReward, PreferenceReward
from prefrm.winmatrix import FakeScorer

WORLD = 2
# name: (group size, the prompts and completions of both processes in order, where the second begins)
BATCHES = {
    "one group of six": (6, ["a"] * 6, ["0", "1", "2", "3", "4", "5"], 3),
    "missing candidates on both sides": (6, ["a"] * 6, ["0", "-", "2", "-", "4", "5"], 3),
    "readable candidates on one side only": (4, ["a"] * 4, ["-", "-", "4", "5"], 2),
    "one readable candidate": (4, ["a"] * 4, ["-", "1", "-", "-"], 2),
    "a straddling group": (4, ["a"] * 4 + ["b"] * 4 + ["c"] * 4, list("012345678901"), 6),
    "whole groups": (3, ["a"] * 3 + ["b"] * 3, list("012345"), 3),
    "one prompt twice": (3, ["a"] * 6, list("012789"), 3),
    "one process has nothing": (2, ["a"] * 2, list("01"), 2),
    "large images": (2, ["a"] * 2, ["1" + "0" * 20 + "." + "0" * 300_000, "0"], 1),
}


class Scorer(FakeScorer):
    def __init__(self):
        super().__init__(lambda prompt, image: float(image))
        self.groups = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)


class SlowScorer:
    """An asynchronous scorer that takes its time."""

    def __init__(self, seconds):
        self.seconds, self.inner = seconds, Scorer()

    async def score(self, groups):
        await asyncio.sleep(self.seconds)
        return self.inner.score(groups)


def to_image(completion, **columns):
    return None if completion == "-" else completion.encode()


def scored(groups):
    return [[group.prompt, [image and image.decode() for image in group.candidates]] for group in groups]


def outcome(call):
    try:
        return {"rewards": call()}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def run_batch(rank, reward_of, scorer, batch):
    size, prompts, completions, cut = batch
    part = slice(0, cut) if rank == 0 else slice(cut, None)
    metrics = []
    reward = reward_of(scorer, to_image, num_generations=size)
    result = outcome(
        lambda: reward(prompts[part], completions[part], log_metric=lambda *entry: metrics.append(entry))
    )
    return {**result, "scored": scored(scorer.groups), "metrics": metrics}


def failures(rank):
    """A failure on either process, before and after the exchange; then the same reward works again."""
    results = {}
    broken = [True]

    def fragile_image(completion, **columns):
        if broken[0] and rank == 1:
            raise RuntimeError("the renderer broke on \udc80")
        return to_image(completion)

    reward = PreferenceReward(Scorer(), fragile_image, num_generations=2)
    results["a callable fails on rank 1"] = outcome(lambda: reward(["a"], [str(rank)]))
    broken[0] = False
    results["and works again"] = outcome(lambda: reward(["a"], [str(rank)]))

    class Down:
        def score(self, groups):
            raise ServerUnavailableError("nobody answers at 127.0.0.1:9")

    reward = PreferenceReward(Down(), to_image, num_generations=2)
    results["the scorer fails on rank 0"] = outcome(lambda: reward(["a"], [str(rank)]))
    reward = PreferenceReward(Scorer(), to_image, num_generations=2)
    results["two prompts in a group"] = outcome(lambda: reward("ab"[rank], [str(rank)]))
    results["half a group"] = outcome(lambda: reward(["a"] * (rank + 2), ["0"] * (rank + 2)))
    return results


def crossing(rank):
    """Two async rewards at once; on each process the other one finishes first."""
    slow, quick = SlowScorer(0.2), SlowScorer(0.0)
    mine, other = (slow, quick) if rank == 0 else (quick, slow)
    first = AsyncPreferenceReward(mine, to_image, num_generations=2, name="first")
    second = AsyncPreferenceReward(other, to_image, num_generations=2, name="second")

    async def both():
        # The groups of the first straddle, and so do those of the second, with other images.
        return await asyncio.gather(
            first(["a"] * 3, ["0", "1", "2"] if rank == 0 else ["3", "4", "5"]),
            second(["a"] * 3, ["9", "5", "2"] if rank == 0 else ["7", "1", "1"]),
        )

    return outcome(lambda: asyncio.run(both()))


def one_async_reward_twice(rank):
    """Two calls of one async reward at once; the scorer takes longer for the first on one process."""

    class Uneven(SlowScorer):
        async def score(self, groups):
            self.seconds = 0.2 if (groups[0].candidates[0] == b"0") == (rank == 0) else 0.0
            return await super().score(groups)

    reward = AsyncPreferenceReward(Uneven(0.0), to_image, num_generations=2)

    async def both():
        return await asyncio.gather(
            reward(["a"] * 3, ["0", "1", "2"] if rank == 0 else ["3", "4", "5"]),
            reward(["a"] * 3, ["9", "5", "2"] if rank == 0 else ["7", "1", "1"]),
        )

    return outcome(lambda: asyncio.run(both()))


def logged(rank, folder):
    """Both processes log into one folder, whose bound leaves one of their files."""
    reward = PreferenceReward(Scorer(), to_image, num_generations=2, log_groups=folder / "log")
    bounded = GroupLog(folder / "bounded", most_groups=3)
    small = PreferenceReward(Scorer(), to_image, num_generations=2, log_groups=bounded)
    rewards = []
    for step in range(10):
        texts = [f"{step}.{rank}", f"{step}.5", f"{rank}{step}"]
        state = SimpleNamespace(global_step=step)
        rewards.append(reward(["a"] * 3, texts, trainer_state=state))
        small(["a"] * 3, texts, trainer_state=state)
    return rewards


def main(folder):
    rank = int(os.environ["RANK"])

    def start(name):
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / name}",
            rank=rank,
            world_size=WORLD,
            timeout=timedelta(seconds=60),
        )

    start("store")
    results = {
        "batches": {
            name: run_batch(rank, PreferenceReward, Scorer(), batch) for name, batch in BATCHES.items()
        },
        "failures": failures(rank),
        "crossing": crossing(rank),
        "logged": logged(rank, folder),
        "one async reward twice": one_async_reward_twice(rank),
    }
    # A later process group, as a second training run of the same process has one.
    reward = PreferenceReward(Scorer(), to_image, num_generations=2)
    before = reward(["a"], [str(rank)])
    dist.destroy_process_group()
    start("second store")
    results["a later process group"] = [before, reward(["a"], [str(rank)])]
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(results))
