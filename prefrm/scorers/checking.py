"""One function that opens whatever a name stands for as a judge of checklists (`prefrm.arena.checklists`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prefrm.arena.checklists import ATTEMPTS, WORDING, CheckJudge, Checklist, YesNoChecks
from prefrm.errors import ConfigError
from prefrm.scorers.chat import ChatGenerator, ChatScorer, ChatSettings
from prefrm.scorers.chat.settings import parse_chat_url
from prefrm.scorers.targets import is_chat, is_scorer_file, is_url

__all__ = ["open_check_judge"]

IN_WORDS = ChatSettings().dialect
"""The dialect of a URL that names none: its model is asked about all checks at once, in words."""


@contextmanager
def open_check_judge(
    target: str,
    *,
    wording: str = WORDING,
    attempts: int = ATTEMPTS,
    engine: Mapping[str, Any] | None = None,
    generator: Callable[[str], AbstractContextManager[ChatGenerator]] = ChatGenerator.connect,
    scorer: Callable[[str], AbstractContextManager[Any]] = ChatScorer.connect,
) -> Iterator[CheckJudge]:
    """The judge of checklists that `target` names, until the block ends.

    Args:
        target: the URL of a chat endpoint, whose model is asked about all checks of an image at once; with
            `dialect=vqascore` in it, about each check, and answers with a probability. Or the bundle of a
            judge that answers yes or no about one image.
        wording: of a checklist, where all checks are asked about at once.
        attempts: answers for an image until one can be read.
        engine: options of a bundle, as `prefrm.engine.open_engine` takes them.
        generator: opens the URL of a judge that answers in words.
        scorer: opens the URL of one that answers with a probability.

    Raises:
        BundleError, ConfigError: the name cannot be opened, or is of another kind of judge.
        MissingExtraError: a bundle is named and torch is not installed.
    """
    if is_chat(target):
        if parse_chat_url(target)[1].dialect == IN_WORDS:
            with generator(target) as judge:
                yield Checklist(judge, wording=wording, attempts=attempts)
        else:
            with scorer(target) as asked:
                asked.require_yes_no()
                yield YesNoChecks(asked)
        return
    if is_url(target) or is_scorer_file(target):
        raise ConfigError(
            f"{target} compares candidates; checklists are judged by a chat endpoint, or by the bundle of a "
            "judge that answers yes or no about one image"
        )
    # torch takes seconds to import.
    from prefrm.engine import YesNoEngine, open_engine

    # The calibration of a bundle is one of comparisons.
    yield YesNoChecks(YesNoEngine(open_engine(target, calibrated=False, **(engine or {}))))
