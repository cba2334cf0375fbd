"""`prefrm quickstart`."""

import time
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["quickstart"]


def quickstart(
    out: Annotated[Path, typer.Option(help="where the run is written")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of all random numbers")] = 0,
) -> None:
    """Train a judge, serve it, rank images with it and train a policy on its rewards, in minutes."""
    # The imports are seconds that its user waits, too.
    started = time.monotonic()
    from prefrm.quickstart import tell

    tell(out, seed=seed, started=started)
