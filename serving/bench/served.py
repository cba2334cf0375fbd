"""The server that is measured, in a process of its own: prefrm's, around the scorer of a name.

It writes its addresses to a file, as `prefrm serve` does, and stops when its standard input ends.
"""

import argparse
import sys
from pathlib import Path

import torch

from prefrm.protocol import DEFAULT_MODEL
from prefrm.shutdown import exit_process, stop_at_end
from prefrm.winmatrix import Scorer
from serving.announcing import announce
from serving.bench.scorers import SCORERS, build_scorer
from serving.limits import Limits
from serving.models import ModelInfo
from serving.queueing.cost import cost_of
from serving.running import run
from serving.server import JudgeServer

__all__ = ["main"]


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("scorer", choices=SCORERS)
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--queued", type=int, help="groups of the judge's that may wait")
    arguments = parser.parse_args()
    stop_at_end(sys.stdin.fileno())
    torch.set_num_threads(arguments.threads)
    scorer: Scorer = build_scorer(arguments.scorer)
    queued = arguments.queued
    limits = Limits() if queued is None else Limits(queued_cost=_cost(scorer, arguments.scorer, queued))
    server = JudgeServer(scorer, ModelInfo(name=DEFAULT_MODEL), limits=limits)
    run(server, on_ready=lambda addresses: announce(addresses, arguments.address_file))
    exit_process(0)


def _cost(scorer: Scorer, judge: str, groups: int) -> int:
    """Of that number of groups of the benchmark."""
    # It brings transformers along, which a small model's server does without.
    from serving.bench.requests import judge_groups

    (group,) = judge_groups(1, judge)
    return groups * cost_of(scorer)(group)


if __name__ == "__main__":
    main()
