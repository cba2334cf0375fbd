"""Arguments that several commands share, and the scorer of `SCORER`."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrm import scorers
from prefrm.cli.local import Local
from prefrm.cli.remote import Connection, Remote
from prefrm.display import one_line
from prefrm.errors import ConfigError, MediaError
from prefrm.options import AsJson
from prefrm.scorers import is_url, sources
from prefrm.scorers.targets import leaves

if TYPE_CHECKING:
    from prefrm.eval import Unreadable
    from prefrm.manifest import Manifest
    from prefrm.winmatrix import Group, IdentifiedScorer, Inputs

__all__ = [
    "AsJson",
    "Context",
    "Data",
    "Pairs",
    "Split",
    "Target",
    "hinting_at_texts",
    "inspected",
    "open_scorer",
    "print_not_judged",
    "print_unreadable",
    "require_context",
    "require_judge",
    "require_judged",
    "require_one_kind",
    "require_readable",
]

Target = Annotated[
    str,
    typer.Argument(
        metavar="SCORER",
        help="a bundle: its folder or hf://org/name; a URL: grpc://host:port/model (several replicas: "
        "grpc://a:8001,b:8001/model) or chat+http://host:port/v1?model=NAME; or a YAML file of an ensemble",
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
Context = Annotated[
    list[Path] | None,
    typer.Option(
        help="an image that belongs to the prompt, such as the source of an edit; may be given several times"
    ),
]

# Exit status of a command whose input was valid and that could judge nothing.
NOTHING_JUDGED = 1


def require_context(files: Sequence[Path], group: "Group") -> None:
    """Raises `ConfigError` if a file of a group's context is a video, `MediaError` if it cannot be read."""
    from prefrm.containers import is_video

    for path, data in zip(files, group.context, strict=True):
        if is_video(data):
            raise ConfigError(f"--context takes images; {path} is a video")
        require_readable(path, data)


def require_one_kind(files: Sequence[Path], group: "Group") -> None:
    """Raises `ConfigError` if some files of a group's candidates are videos and others not."""
    from prefrm.containers import is_video

    kinds = {is_video(data or b""): path for path, data in zip(files, group.encoded, strict=False)}
    if len(kinds) > 1:
        raise ConfigError(f"candidates are of one kind; {kinds[True]} is a video, {kinds[False]} an image")


def require_readable(path: Path, data: bytes) -> None:
    """Raises `MediaError` that names the file unless its content is an image or a video that can be read."""
    from prefrm import media
    from prefrm.containers import is_video
    from prefrm.video import probe_video

    try:
        probe_video(data) if is_video(data) else media.decode(data)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error


@contextmanager
def hinting_at_texts(files: Sequence[Path]) -> Iterator[None]:
    """Add to a `MediaError` that texts are candidates, too, if none of the files exists."""
    try:
        yield
    except MediaError as error:
        if any(os.path.exists(file) for file in files):
            raise
        raise MediaError(f"{error}; if they are texts, give them with --text") from error


@contextmanager
def open_scorer(
    target: str,
    pairs: int | None = None,
    remote: Connection | None = None,
    local: Local | None = None,
    *,
    calibrated: bool = True,
) -> "Iterator[IdentifiedScorer]":
    """The scorer that `target` names, until the block ends; its bundles are described on standard error.

    `pairs` is the budget of an engine, None for all; `remote` has the options of a connection, `local` those
    of a bundle; `calibrated` is as in `prefrm.scorers.open_scorer`.
    """
    bundles = inspected(target)
    if pairs is not None and not bundles:
        raise ConfigError(
            f"--pairs {pairs}: the server decides how many pairs it judges; give it to `prefrm serve`, or "
            f"add pairs={pairs} to the URL of a chat endpoint"
        )
    options = local or Local()
    engine = {"device": options.device, "dtype": options.dtype, "pairs": "all" if pairs is None else pairs}
    connect = (remote or Remote()).connect
    with scorers.open_scorer(target, engine=engine, connect=connect, calibrated=calibrated) as scorer:
        for manifest in bundles:
            print(f"judge: {manifest.describe()}", file=sys.stderr)
        yield scorer


def require_judge(target: str, remote: Remote | None = None) -> "dict[str, Inputs]":
    """What each judge of `target` reads of a group, by its name; of an ensemble, its members.

    Raises before anything is scored if one is not a bundle, no server answers, or a judge is to judge by a
    criterion and reads none.
    """
    from prefrm.winmatrix import inputs_of

    names = sources(target)
    bundles = [name for name in names if not is_url(name)]
    found = {name: one.inputs for name, one in zip(bundles, inspected(target), strict=True)}
    connect = scorers.with_own_tokens((remote or Remote()).connect, target)
    for source in filter(is_url, names):
        with connect(source) as scorer:
            scorer.identity()
            found[source] = inputs_of(scorer)
    members = leaves(target)
    for member in members:
        if member.criterion and not found[member.scorer].criterion:
            raise ConfigError(f"{member.name}: this judge does not read a criterion; leave it out")
    return {member.name: found[member.scorer].by(member.criterion) for member in members}


def inspected(target: str) -> "list[Manifest]":
    """The manifest of each bundle that `target` names, before any is loaded.

    Raises `BundleError` if one is not a bundle.
    """
    from prefrm.manifest import bundle_folder, inspect_bundle

    bundles = [source for source in sources(target) if not is_url(source)]
    return [inspect_bundle(bundle_folder(source)) for source in bundles]


def print_not_judged(candidates: Iterable[tuple[str, int, str]]) -> None:
    """Name candidates by record id and place, with the reason, on standard error: a line for each reason."""
    for (record, reason), alike in groupby(candidates, key=lambda one: (one[0], one[2])):
        places = [place for _, place, _ in alike]
        who = f"candidate {places[0]} was" if len(places) == 1 else f"{len(places)} candidates were"
        print(f"record {record!r}, {who} not judged: {reason}", file=sys.stderr)


def print_unreadable(unreadable: "Iterable[Unreadable]") -> None:
    """Name what an evaluation left out on standard error: its candidates, and how many pairs of others."""
    found = list(unreadable)
    pairs = [one for one in found if len(one.candidates) == 2]
    print_not_judged((one.id, one.candidates[0], one.reason) for one in found if len(one.candidates) == 1)
    if pairs:
        first, (i, j) = pairs[0], pairs[0].candidates
        who = f"the first one of record {first.id!r}, candidates {i} and {j}"
        print(f"pairs that were not judged: {len(pairs)}; {who}: {one_line(first.reason)}", file=sys.stderr)


def require_judged(judged: bool, reason: str) -> None:
    """End the command with status 1 and one line if nothing could be judged at all."""
    if not judged:
        print(f"prefrm: nothing was judged: {one_line(reason)}", file=sys.stderr)
        raise typer.Exit(NOTHING_JUDGED)
