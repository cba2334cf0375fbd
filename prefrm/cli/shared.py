"""Arguments that several commands share, and the judge of `BUNDLE|URL`."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.display import one_line
from prefrm.errors import ConfigError
from prefrm.options import AsJson
from prefrm.protocol import judge_identity
from prefrm.scorers import is_url

if TYPE_CHECKING:
    from prefrm.winmatrix import Scorer

__all__ = [
    "AsJson",
    "Data",
    "Pairs",
    "Split",
    "Target",
    "identity",
    "one_commit",
    "open_scorer",
    "print_not_judged",
    "require_judge",
    "require_judged",
]

Target = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE|URL",
        help="a bundle: its folder or hf://org/name; or grpc://host:port/model; several replicas: grpc://a:8001,b:8001/model",
    ),
]
Data = Annotated[
    Path, typer.Argument(help="a dataset, as `prefrm data build` writes it: its folder or hf://org/name")
]
Split = Annotated[str, typer.Option(help="which split of the dataset")]
Pairs = Annotated[
    int | None,
    typer.Option(
        "--pairs", min=1, help="number of pairs of a group to judge; the others are inferred; all by default"
    ),
]

# Exit status of a command whose input was valid and that could judge nothing.
NOTHING_JUDGED = 1


@contextmanager
def open_scorer(
    target: str, pairs: int | None = None, remote: Remote | None = None, local: Local | None = None
) -> "Iterator[Scorer]":
    """The judge of a bundle, on this machine, or the one behind a URL, until the block ends.

    `pairs` is the budget of an engine, None for all; `remote` has the options of a connection, `local` those
    of a bundle.
    """
    if is_url(target):
        if pairs is not None:
            raise ConfigError(
                f"--pairs {pairs}: the server decides how many pairs it judges; give it to `prefrm serve`"
            )
        with (remote or Remote()).connect(target) as scorer:
            yield scorer
        return
    from prefrm.manifest import bundle_folder, inspect_bundle

    folder = bundle_folder(target)
    manifest = inspect_bundle(folder)
    # torch takes seconds to import.
    from prefrm.engine import Engine

    options = local or Local()
    engine = Engine.from_bundle(
        folder,
        device=options.device,
        dtype=options.dtype,
        pairs="all" if pairs is None else pairs,
    )
    print(f"judge: {manifest.describe()}", file=sys.stderr)
    yield engine


def one_commit(target: str) -> str:
    """`target`, or the folder of what it names on the Hub: one commit, whatever its branch does meanwhile."""
    from prefrm.manifest import bundle_folder

    return target if is_url(target) else str(bundle_folder(target))


def require_judge(target: str, remote: Remote | None = None) -> None:
    """Raise before anything is scored if `target` is not a bundle, or if no server answers at the URL."""
    if is_url(target):
        with open_scorer(target, remote=remote) as scorer:
            identity(target, scorer)
            return
    from prefrm.manifest import bundle_folder, inspect_bundle

    inspect_bundle(bundle_folder(target))


def identity(target: str, scorer: "Scorer", pairs: int | None = None) -> str:
    """The identity of a judge, local or behind any URL: its bundle's digest, and the budget of pairs."""
    from prefrm.client import RemoteScorer

    if isinstance(scorer, RemoteScorer):
        return scorer.identity()
    from prefrm.manifest import bundle_folder, read_manifest

    return judge_identity(read_manifest(bundle_folder(target)).digest, pairs)


def print_not_judged(candidates: Iterable[tuple[str, int, str]]) -> None:
    """Name candidates by record id and place, with the reason, on standard error: a line for each reason."""
    for (record, reason), alike in groupby(candidates, key=lambda one: (one[0], one[2])):
        places = [place for _, place, _ in alike]
        who = f"candidate {places[0]} was" if len(places) == 1 else f"{len(places)} candidates were"
        print(f"record {record!r}, {who} not judged: {reason}", file=sys.stderr)


def require_judged(judged: bool, reason: str) -> None:
    """End the command with status 1 and one line if nothing could be judged at all."""
    if not judged:
        print(f"prefrm: nothing was judged: {one_line(reason)}", file=sys.stderr)
        raise typer.Exit(NOTHING_JUDGED)
