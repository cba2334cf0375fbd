"""What the commands that train share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

__all__ = ["Overrides", "Resume", "resumable"]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting; may be repeated")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="continue an interrupted run from its newest checkpoint")
]


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C, print how to continue the training of the block."""
    try:
        yield
    except KeyboardInterrupt:
        print("the same command with --resume continues from the newest checkpoint", file=sys.stderr)
        raise
