"""One function that opens whatever a name of a scorer stands for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.errors import ConfigError
from prefrm.scorers.ensemble import Ensemble, Member
from prefrm.scorers.files import read_scorer_file
from prefrm.scorers.targets import is_chat, is_scorer_file, is_url, sources

if TYPE_CHECKING:
    from prefrm.winmatrix import IdentifiedScorer

__all__ = ["Connect", "connect_url", "open_scorer"]

Connect = Callable[[str], "AbstractContextManager[IdentifiedScorer]"]
"""Opens the scorer behind a URL."""


def connect_url(url: str, **options: Any) -> "AbstractContextManager[IdentifiedScorer]":
    """The scorer behind a URL: of a server (`prefrm.client.connect`) or of a chat endpoint.

    Raises:
        ConfigError: as these, of which `options` are.
    """
    if is_chat(url):
        raise ConfigError(f"{url}: chat endpoints are not supported yet")
    from prefrm.client import connect

    return connect(url, **options)


@contextmanager
def open_scorer(
    target: Path | str, *, engine: Mapping[str, Any] | None = None, connect: Connect = connect_url
) -> "Iterator[IdentifiedScorer]":
    """The scorer that `target` names, until the block ends.

    Args:
        target: the folder of a bundle, `hf://org/name[@revision]`, a URL such as `grpc://host:8001/judge` or
            `chat+http://host:8000/v1?model=NAME`, or a scorer file (`prefrm.scorers.files`).
        engine: options of every bundle, as `prefrm.engine.Engine.from_bundle` takes them.
        connect: opens every URL, such as `functools.partial(connect_url, token=TOKEN)`.

    Raises:
        BundleError, ConfigError: a name cannot be opened; scorer files are read before anything is loaded.
        MissingExtraError: a bundle is named and torch is not installed.
    """
    # A mistake in a scorer file is found before a judge is loaded, which takes minutes.
    sources(target)
    with ExitStack() as stack:
        yield _opened(str(target), engine or {}, connect, stack)


def _opened(target: str, engine: Mapping[str, Any], connect: Connect, stack: ExitStack) -> "IdentifiedScorer":
    if is_scorer_file(target):
        file = read_scorer_file(target)
        members = [
            Member(name=one.scorer, scorer=_opened(one.scorer, engine, connect, stack), weight=one.weight)
            for one in file.scorers
        ]
        return Ensemble(members, combine=file.combine, penalty=file.penalty, calibration=file.calibration)
    if is_url(target):
        return stack.enter_context(connect(target))
    # torch takes seconds to import.
    from prefrm.engine import Engine

    return Engine.from_bundle(target, **engine)
