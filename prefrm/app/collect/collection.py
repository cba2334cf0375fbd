"""A collection: a dataset whose pairs people compare, the judges that say which, and the file of the
answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from prefrm import media
from prefrm.answers import AnswersOf, AnswerStore, Question, Verdict
from prefrm.answers.annotators import AnnotatorReport, assess_annotators
from prefrm.app.collect.catalog import Catalog, Listed
from prefrm.app.collect.queue import KnownPair, PairQueue, QueueSettings
from prefrm.app.judges import Judges
from prefrm.data import LoadedGroups
from prefrm.errors import DatasetError, PrefrmError
from prefrm.records import PreferenceGroup, read_info
from prefrm.shutdown import in_daemon_thread
from prefrm.winmatrix import Kind, WinMatrix

__all__ = ["Collection", "Progress", "Shown", "State"]

logger = logging.getLogger(__name__)

# Groups that are judged together before their pairs are asked about: few, so that people need not wait.
BATCH = 8

State = Literal["loading", "waiting", "done"]
"""Why there is no question: groups are still listed, other people have not answered yet, or nothing is
left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What an annotator sees: contents are named by their digests.

    Attributes:
        question: its id.
        prompt: what the candidates answer.
        criterion: what they are compared by; "" is overall preference.
        kind: of the candidates.
        context: images that belong to the prompt.
        left: the candidate on the left.
        right: the other one.
    """

    question: int
    prompt: str
    criterion: str
    kind: Kind
    context: tuple[str, ...]
    left: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a collection is.

    Attributes:
        listed: groups whose pairs can be asked about.
        groups: groups that the dataset has.
        pairs: new pairs that as many people have answered as are to.
        of_pairs: pairs of the listed groups.
        problems: why judges could not judge or groups not be listed, a line each.
    """

    listed: int
    groups: int
    pairs: int
    of_pairs: int
    problems: tuple[str, ...]


class Collection:
    """Asks people and keeps their answers. Safe to use from several threads.

    An annotator is a name. Each has one question at a time, and is shown it again until it is answered.

    Args:
        path: the file of the answers, new or of an earlier session.
        groups: the split of the dataset whose pairs are compared.
        settings: which pairs, and how often.
        known: a split with comparisons that are known: strict ones measure the annotators.
        criterion: what candidates are compared by; None for each group's own.
        clock: Unix time, in seconds.

    Raises:
        DatasetError: the answers are about another dataset, or `known` has no strict comparison.
    """

    def __init__(
        self,
        path: Path | str,
        groups: LoadedGroups,
        *,
        settings: QueueSettings | None = None,
        known: LoadedGroups | None = None,
        criterion: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._criterion = clock, criterion
        self._catalogs = [Catalog(groups)]
        pairs: list[KnownPair] = []
        if known is not None:
            self._catalogs.append(Catalog(known))
            pairs = [pair for group in self._catalogs[1].read() for pair in self._known_pairs(group)]
            if not pairs:
                raise DatasetError(f"{known.folder}, {known.split}: no comparison is strict; none is known")
        self._lock = threading.Lock()
        self._queue = PairQueue(settings or QueueSettings(), pairs)
        self._store = AnswerStore(path, _answers_of(groups), clock)
        verdicts = {answer.question.id: answer.verdict for answer in self._store.answers()}
        for question in self._store.questions():
            self._queue.shown(question)
            if question.id in verdicts:
                self._queue.answered(question, verdicts[question.id])
        self._listed, self._complete = 0, False
        self._problems: dict[str, str] = {}

    def close(self) -> None:
        """Close the file; every answer is in it."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, judges: Judges | None = None) -> None:
        """List the groups and let the judges judge them, in the background; `progress` names problems."""

        def listing() -> None:
            try:
                self.list_groups(judges)
            # No caller joins this thread, so an error must be kept for the page to show.
            except Exception as error:
                logger.exception("the groups cannot be listed to their end")
                self._problems[""] = f"the groups cannot be listed to their end: {error}"

        in_daemon_thread(listing)

    def list_groups(self, judges: Judges | None = None) -> None:
        """List the groups, judged by every judge that can; their pairs can be asked about as this goes on."""
        groups = self._catalogs[0].read()
        while batch := list(islice(groups, BATCH)):
            asked = [replace(group, criterion=self._criterion_of(group)) for group in batch]
            by_judge = [self._judged(judges, name, asked) for name in (judges.names if judges else ())]
            answers = [found for found in by_judge if found is not None]
            with self._lock:
                for n, group in enumerate(asked):
                    listed = self._catalogs[0].find(group.id)
                    assert listed is not None
                    matrices = [matrices[n] for matrices in answers]
                    self._queue.add(group.id, listed.candidates, matrices, group.criterion)
                self._listed += len(batch)
        self._complete = True

    def next(self, annotator: str) -> Shown | State:
        """The question of an annotator, the open one or a new one, or why there is none."""
        with self._lock:
            question = self._store.open_question(annotator)
            if question is None:
                showing = self._queue.next(annotator, self._clock())
                if showing is None:
                    if not self._complete:
                        return "loading"
                    return "waiting" if self._queue.waiting(annotator) else "done"
                question = self._store.ask(annotator, **showing._asdict())
                self._queue.shown(question)
        listed = self._catalogs[question.purpose == "known"].find(question.group)
        # One of an earlier session may not be listed yet.
        return "loading" if listed is None else _shown(question, listed)

    def answer(
        self, annotator: str, question: int, *, key: str, verdict: Verdict, response_s: float | None
    ) -> bool:
        """Keep an answer; it is on the disk when this returns. False if the same request was answered before.

        Raises:
            AnswerConflict: as `AnswerStore.answer`.
            DataError: as `AnswerStore.answer`.
        """
        with self._lock:
            answer = self._store.answer(annotator, question, key=key, verdict=verdict, response_s=response_s)
            if answer is None:
                return False
            self._queue.answered(answer.question, answer.verdict)
            return True

    def content(self, digest: str) -> bytes | str | None:
        """A candidate or a context image by its digest; None if there is none."""
        found = (catalog.content(digest) for catalog in self._catalogs)
        return next((content for content in found if content is not None), None)

    def progress(self) -> Progress:
        """How far it is."""
        with self._lock:
            pairs, of_pairs = self._queue.progress()
            return Progress(
                listed=self._listed,
                groups=len(self._catalogs[0]),
                pairs=pairs,
                of_pairs=of_pairs,
                problems=tuple(self._problems.values()),
            )

    def annotators(self) -> list[AnnotatorReport]:
        """A report of each annotator."""
        with self._lock:
            answers = list(self._store.answers())
        return assess_annotators(answers)

    def _judged(
        self, judges: Judges | None, name: str, groups: Sequence[PreferenceGroup]
    ) -> list[WinMatrix] | None:
        """The matrices of a judge; None of one that cannot judge at all."""
        assert judges is not None
        if name in self._problems:
            return None
        try:
            return judges.score(name, [group.group() for group in groups])
        except PrefrmError as error:
            self._problems[name] = f"{name}: {error}"
            logger.warning("pairs are chosen without the judge %s: %s", name, error)
            return None

    def _criterion_of(self, group: PreferenceGroup) -> str:
        return group.criterion if self._criterion is None else self._criterion

    def _known_pairs(self, group: PreferenceGroup) -> Iterator[KnownPair]:
        digests = [media.digest(candidate) if candidate else "" for candidate in group.candidates]
        for c in group.comparisons:
            if c.is_strict and digests[c.i] != digests[c.j]:
                yield KnownPair(
                    group=group.id,
                    criterion=self._criterion_of(group),
                    first=digests[c.i],
                    second=digests[c.j],
                    p=c.p,
                )


def _shown(question: Question, listed: Listed) -> Shown:
    return Shown(
        question=question.id,
        prompt=listed.prompt,
        criterion=question.criterion,
        kind=listed.kind,
        context=listed.context,
        left=question.left,
        right=question.right,
    )


def _answers_of(groups: LoadedGroups) -> AnswersOf:
    fingerprint = read_info(groups.folder).fingerprints[groups.split]
    return AnswersOf(data=str(groups.folder.resolve()), split=groups.split, fingerprint=fingerprint)
