"""One function that opens whatever a name of a scorer stands for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.scorers.credentials import with_own_tokens
from prefrm.scorers.ensemble import Ensemble, Member
from prefrm.scorers.files import read_scorer_file
from prefrm.scorers.targets import is_chat, is_scorer_file, is_url

if TYPE_CHECKING:
    from prefrm.winmatrix import IdentifiedScorer

__all__ = ["Connect", "connect_url", "open_scorer"]

Connect = Callable[..., "AbstractContextManager[IdentifiedScorer]"]
"""Opens the scorer behind a URL; of several, each with `token=`, its own or None."""


def connect_url(url: str, **options: Any) -> "AbstractContextManager[IdentifiedScorer]":
    """The scorer behind a URL: of a server (`prefrm.client.connect`) or of a chat endpoint.

    Raises:
        ConfigError: as these, of which `options` are.
    """
    if is_chat(url):
        from prefrm.scorers.chat import ChatScorer

        return ChatScorer.connect(url, **options)
    from prefrm.client import connect

    return connect(url, **options)


@contextmanager
def open_scorer(
    target: Path | str,
    *,
    engine: Mapping[str, Any] | None = None,
    connect: Connect = connect_url,
    calibrated: bool = True,
) -> "Iterator[IdentifiedScorer]":
    """The scorer that `target` names, until the block ends.

    Args:
        target: the folder of a bundle, `hf://org/name[@revision]`, a URL such as `grpc://host:8001/judge` or
            `chat+http://host:8000/v1?model=NAME`, or a scorer file (`prefrm.scorers.files`).
        engine: options of every bundle, as `prefrm.engine.open_engine` takes them.
        connect: opens every URL, such as `functools.partial(connect_url, token=TOKEN)`. Where a scorer file
            leads to several, each gets the token that the file names for it (`token_env`) and no other.
        calibrated: False leaves out the calibration of `target` itself, a bundle's or a scorer file's. The
            members of an ensemble keep theirs, and so does what is behind a URL.

    Raises:
        BundleError, ConfigError: a name cannot be opened; scorer files are read before anything is loaded.
        MissingExtraError: a bundle is named and torch is not installed.
    """
    # A mistake in a scorer file is found before a judge is loaded, which takes minutes.
    own = with_own_tokens(connect, target)
    with ExitStack() as stack:
        yield _opened(str(target), engine or {}, own, stack, calibrated)


def _opened(
    target: str, engine: Mapping[str, Any], connect: Connect, stack: ExitStack, calibrated: bool = True
) -> "IdentifiedScorer":
    if is_scorer_file(target):
        file = read_scorer_file(target)
        recorded = file.calibration if calibrated else None
        # One that stands there by several criteria is opened once.
        names = dict.fromkeys(one.scorer for one in file.scorers)
        opened = {name: _opened(name, engine, connect, stack) for name in names}
        return Ensemble(
            [
                Member(name=one.name, scorer=opened[one.scorer], weight=one.weight, criterion=one.criterion)
                for one in file.scorers
            ],
            combine=file.combine,
            penalty=file.penalty,
            margin=file.margin,
            calibration=None if recorded is None else recorded.map,
        )
    if is_url(target):
        return stack.enter_context(connect(target))
    # torch takes seconds to import.
    from prefrm.engine import open_engine

    return open_engine(target, calibrated=calibrated, **engine)
