"""`prefrm serve` as it is, but for the judge, which judges by length and takes no torch to load.

A bundle and two prompts keep it busy for about a minute: the bundle "slow" while it is loaded and the prompt
"gil" while it is scored, both with the interpreter's lock held, and the prompt "torch FILE" in torch, once
the file exists.
"""

import sys
import time
from collections import deque
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

from prefrm.winmatrix import FakeScorer, Inputs

MINUTE_S = 60


class Engine(FakeScorer):
    cache = None
    judge = SimpleNamespace(device="cpu")
    pass_sizes = "any size"

    @classmethod
    def from_bundle(cls, folder, **options):
        if Path(folder).name == "slow":
            hold_lock("loading")
        return cls(utility)


def utility(prompt, image):
    what, _, file = prompt.partition(" ")
    if what == "gil":
        hold_lock()
    if what == "torch":
        compute(Path(file))
    return float(len(image))


def hold_lock(*announced):
    # A loop in C, which no signal interrupts; it prints itself, so that no signal comes before it begins.
    printed = map(partial(print, flush=True), announced)
    deque(chain(printed, repeat(None, 10**10)), maxlen=0)


def compute(begun):
    import torch

    matrix = torch.rand(1500, 1500)
    end = time.monotonic() + MINUTE_S
    while time.monotonic() < end:
        matrix @ matrix
        begun.touch()


def main():
    manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64, inputs=Inputs())
    sys.modules["prefrm.manifest"] = SimpleNamespace(
        MANIFEST="manifest.json",
        Manifest=SimpleNamespace,
        bundle_folder=Path,
        inspect_bundle=lambda folder: manifest,
        read_manifest=lambda folder: manifest,
    )
    sys.modules["prefrm.engine"] = SimpleNamespace(open_engine=Engine.from_bundle)
    from prefrm.cli import main as run_command

    sys.argv[1:1] = ["serve"]
    run_command()


if __name__ == "__main__":
    main()
