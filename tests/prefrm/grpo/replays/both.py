"""The replays that the tests play, and one process of two that play them."""

import json
import os
from datetime import timedelta

import torch.distributed as dist

from prefrm.errors import PrefrmError
from prefrm.grpo.replays import load, play
from tests.prefrm.grpo.pixels import PixelScorer

TRAINERS = ["flow_factory", "flow_grpo"]
REPLAYS = [replay for trainer in TRAINERS for replay in load(trainer)]
SPREAD = [replay for replay in REPLAYS if replay.processes == 2]


def options_of(replay):
    """Missing images stop a run unless they are dropped."""
    return {"on_missing": "drop"} if any(sample.missing for sample in replay.samples) else {}


def main(folder):
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    seen = {}
    for replay in SPREAD:
        try:
            played = play(replay, PixelScorer(), rank=rank, **options_of(replay))
            seen[replay.name] = {"rewards": played.rewards, "judged": played.judged}
        except PrefrmError as error:
            seen[replay.name] = {"error": str(error)}
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(seen))
