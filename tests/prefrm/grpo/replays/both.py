"""The replays that the tests play, and one process of two that play them."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch.distributed as dist

from prefrm.errors import PrefrmError, ServerUnavailableError
from prefrm.grpo.collector import Collector, Keyed
from prefrm.grpo.layout import Candidate
from prefrm.grpo.replays import load, options_of, play
from tests.prefrm.grpo.pixels import PixelScorer

TRAINERS = ["flow_factory", "flow_grpo", "slime", "trl", "verl"]
REPLAYS = [replay for trainer in TRAINERS for replay in load(trainer)]
SPREAD = [replay for replay in REPLAYS if replay.processes == 2]


class Down:
    """A judge that cannot be reached."""

    def score(self, groups):
        raise ServerUnavailableError("nobody answers at 127.0.0.1:9")


def seen(replay, scorer, rank):
    try:
        played = play(replay, scorer, rank=rank, **options_of(replay))
    except PrefrmError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"rewards": played.rewards, "judged": played.judged}


def impatient(rank):
    """Rank 0 gives a group up just before the call that makes it whole; rank 1 still waits for it."""
    group_timeout = 0.2 if rank == 0 else 60.0
    groups = Collector(
        lambda whole: [[len(rows)] * len(rows) for rows in whole],
        size=4,
        group_timeout=group_timeout,
        advice="wait",
    )

    def outcome(count):
        try:
            rows = [Keyed("a", Candidate(prompt="a", content=b"0"))] * count
            return groups.outcomes(lambda: rows)
        except PrefrmError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=2) as executor:
        first = executor.submit(outcome, 1)
        if rank == 0:
            first.result()
        second = executor.submit(outcome, 1)
        results = [first.result(), second.result()]
    return [*results, outcome(2)]


def main(folder):
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    results = {replay.name: seen(replay, PixelScorer(), rank) for replay in SPREAD}
    epoch = next(replay for replay in SPREAD if "over all batches" in replay.name)
    results["down on rank 1"] = seen(epoch, Down() if rank == 1 else PixelScorer(), rank)
    results["impatient"] = impatient(rank)
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(results))
