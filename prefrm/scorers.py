"""A scorer by its name: a bundle on this machine or on the Hub, or a judge behind a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.hub import is_hub

if TYPE_CHECKING:
    from prefrm.winmatrix import Scorer

__all__ = ["is_url", "open_scorer"]


def is_url(target: Path | str) -> bool:
    """Whether `target` is the URL of a server; a name on the Hub is not."""
    return "://" in str(target) and not is_hub(target)


@contextmanager
def open_scorer(target: Path | str, **options: Any) -> "Iterator[Scorer]":
    """The scorer that `target` names, until the block ends.

    Args:
        target: the folder of a bundle, `hf://org/name[@revision]`, or a URL such as
            `grpc://host:8001/judge`.
        options: of `prefrm.engine.Engine.from_bundle` or, for a URL, of `prefrm.client.connect`.

    Raises:
        BundleError, ConfigError: as these.
        MissingExtraError: a bundle is named and torch is not installed.
    """
    if is_url(target):
        from prefrm.client import connect

        with connect(str(target), **options) as remote:
            yield remote
        return
    # torch takes seconds to import.
    from prefrm.engine import Engine

    yield Engine.from_bundle(target, **options)
