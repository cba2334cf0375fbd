"""Questions and answers in a SQLite file: one row for each pair that was shown to an annotator.

A row is written when the pair is shown and completed when it is answered. The database itself keeps the two
rules that matter: an annotator has at most one question without an answer, so a client that was killed is
shown the same pair again, and an answer's idempotency key is unique, so a request that is repeated changes
nothing. A commit is on the disk (`synchronous = FULL`) before the call returns.
"""

import fcntl
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, get_args

from prefrm.errors import ConfigError, DataError, DatasetError

__all__ = [
    "Answer",
    "AnswerConflict",
    "AnswerStore",
    "AnswersOf",
    "Purpose",
    "Question",
    "Verdict",
    "read_answers",
]

Verdict = Literal["left", "right", "tie", "both_bad", "skip"]
"""Which candidate is preferred; neither; neither, and both are bad; or no statement at all."""
Purpose = Literal["new", "repeat", "known"]
"""Why a pair is shown: to learn which is preferred, or to measure the annotator by a pair that was answered
before, or by one whose answer is known."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

FORMAT_VERSION = 1
MAX_KEY = 200  # characters of an idempotency key
BUSY_S = 30.0  # until a file that another process writes is given up
SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE question (
    id INTEGER PRIMARY KEY,
    annotator TEXT NOT NULL,
    group_id TEXT NOT NULL,
    left TEXT NOT NULL,
    right TEXT NOT NULL CHECK (left != right),
    criterion TEXT NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN {PURPOSES}),
    known REAL CHECK ((known IS NULL) = (purpose != 'known') AND known BETWEEN 0 AND 1),
    asked_at REAL NOT NULL,
    key TEXT UNIQUE,
    verdict TEXT CHECK (verdict IN {VERDICTS} AND (verdict IS NULL) = (key IS NULL)),
    response_s REAL CHECK (response_s >= 0),
    answered_at REAL CHECK ((answered_at IS NULL) = (verdict IS NULL))
) STRICT;
CREATE UNIQUE INDEX question_open ON question (annotator) WHERE verdict IS NULL;
"""


class AnswerConflict(DataError):
    """A question is another annotator's or was answered before, or a key was used for another answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersOf:
    """The split of a dataset whose pairs are shown.

    Attributes:
        data: the folder, or hf://org/name@revision.
        split: its name.
        fingerprint: of the split, as `DatasetInfo` has it.
    """

    data: str
    split: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Two candidates as they are shown to an annotator.

    Attributes:
        id: unique in its file, in the order of asking.
        annotator: who is asked.
        group: id of the preference group.
        left: `media.digest` of the candidate on the left.
        right: that of the other one.
        criterion: what they are compared by; "" is overall preference.
        purpose: why they are shown.
        known: probability that `left` is preferred, of a known pair; otherwise None.
        asked_at: Unix time, in seconds.
    """

    id: int
    annotator: str
    group: str
    left: str
    right: str
    criterion: str
    purpose: Purpose
    known: float | None
    asked_at: float

    @property
    def pair(self) -> tuple[str, str, str, str]:
        """Group, criterion and both digests in order: equal for both presentation orders."""
        return (self.group, self.criterion, min(self.left, self.right), max(self.left, self.right))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: what was shown.
        verdict: the annotator's.
        response_s: seconds between the display of both candidates and the answer, as the page measured them;
            None if it could not, as when the page was hidden in between.
        answered_at: Unix time, in seconds.
    """

    question: Question
    verdict: Verdict
    response_s: float | None
    answered_at: float

    @property
    def is_strict(self) -> bool:
        """Whether one of the two is preferred."""
        return self.verdict in ("left", "right")

    @property
    def p_left(self) -> float | None:
        """1, 0 or 0.5 for a tie, "both bad" included; None for a skipped pair."""
        return {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}.get(self.verdict)


class AnswerStore:
    """The file, open for writing; calls must not overlap, from whichever thread they come.

    Args:
        path: a new file, or one of an earlier session about the same dataset.
        answers_of: the dataset; that of an earlier session may have moved, but not changed.
        clock: Unix time, in seconds.

    Raises:
        DatasetError: the file is of another dataset or is not a file of answers.
        ConfigError: it cannot be created, or another session is writing to it.
    """

    def __init__(
        self, path: Path | str, answers_of: AnswersOf, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._lock = _exclusive(Path(path))
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
        except sqlite3.OperationalError as error:
            self._lock.close()
            raise ConfigError(f"the answers {path} cannot be opened or created: {error}") from error
        try:
            with _of_answers(path):
                self._open(Path(path), answers_of)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, answers_of: AnswersOf) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            if not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._db.execute(statement)
                self._set_meta(format_version=str(FORMAT_VERSION))
            elif (found := _answers_of(self._db, path)).fingerprint != answers_of.fingerprint:
                raise DatasetError(
                    f"{path} has answers about the split {found.split} of {found.data}, which is not the "
                    f"same as {answers_of.split} of {answers_of.data}; name another file for the answers"
                )
            self._set_meta(data=answers_of.data, split=answers_of.split, fingerprint=answers_of.fingerprint)

    def close(self) -> None:
        """Close the file; nothing is left to write."""
        self._db.close()
        self._lock.close()

    def __enter__(self) -> "AnswerStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open_question(self, annotator: str) -> Question | None:
        """The question that an annotator was shown and has not answered."""
        rows = self._db.execute(f"{_SELECT} WHERE annotator = ? AND verdict IS NULL", (annotator,))
        return next((_question(row) for row in rows), None)

    def ask(
        self,
        annotator: str,
        *,
        group: str,
        left: str,
        right: str,
        criterion: str = "",
        purpose: Purpose = "new",
        known: float | None = None,
    ) -> Question:
        """Write down that a pair is shown, before it is; an annotator with an open question is not asked."""
        row = (annotator, group, left, right, criterion, purpose, known, self._clock())
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO question (annotator, group_id, left, right, criterion, purpose, known, asked_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        assert cursor.lastrowid is not None
        return _question((cursor.lastrowid, *row))

    def answer(
        self, annotator: str, question: int, *, key: str, verdict: Verdict, response_s: float | None
    ) -> Answer | None:
        """Write an answer down; None if this very request was answered before, and nothing changes.

        Args:
            annotator: who answers.
            question: id of the annotator's question.
            key: idempotency key, which a client makes once for each answer and repeats with a repeated
                request.
            verdict: one of `VERDICTS`.
            response_s: as in `Answer`.

        Raises:
            AnswerConflict: the annotator has no such question, it was answered under another key, or the key
                was used for another answer.
            DataError: the key is empty or too long, or the time is negative or not finite.
        """
        if not 0 < len(key) <= MAX_KEY:
            raise DataError(f"an idempotency key has 1 to {MAX_KEY} characters; received {len(key)}")
        if verdict not in VERDICTS:
            raise DataError(f"a verdict is one of {', '.join(VERDICTS)}; received {verdict!r:.60}")
        if response_s is not None and not (math.isfinite(response_s) and response_s >= 0):
            raise DataError(f"a response time is a number of seconds of at least 0; received {response_s}")
        with self._transaction():
            earlier = self._db.execute(
                "SELECT id, annotator, verdict FROM question WHERE key = ?", (key,)
            ).fetchone()
            if earlier == (question, annotator, verdict):
                return None
            if earlier is not None:
                raise AnswerConflict("this idempotency key was used for another answer; make a new one")
            row = self._db.execute(
                f"{_SELECT} WHERE id = ? AND annotator = ?", (question, annotator)
            ).fetchone()
            if row is None:
                raise AnswerConflict(f"{annotator} has no question {question}")
            answered_at = self._clock()
            changed = self._db.execute(
                "UPDATE question SET key = ?, verdict = ?, response_s = ?, answered_at = ?"
                " WHERE id = ? AND verdict IS NULL",
                (key, verdict, response_s, answered_at, question),
            ).rowcount
            if not changed:
                raise AnswerConflict(f"question {question} was answered before, under another key")
        return Answer(
            question=_question(row), verdict=verdict, response_s=response_s, answered_at=answered_at
        )

    def questions(self) -> Iterator[Question]:
        """Every question that was asked, answered or not, in order."""
        return map(_question, self._db.execute(f"{_SELECT} ORDER BY id"))

    def answers(self) -> Iterator[Answer]:
        """Every answer, in the order of the questions."""
        return _answers(self._db)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _set_meta(self, **values: str) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def read_answers(path: Path | str) -> tuple[AnswersOf, list[Answer]]:
    """What was asked about, and all answers, in the order of the questions; also while a session writes them.

    Raises:
        DatasetError: there is no such file, or it is not a file of answers.
    """
    if not Path(path).is_file():
        raise DatasetError(f"{path} is not a file of answers: there is no such file")
    with _of_answers(path), closing(_read_only(Path(path))) as db:
        db.execute("BEGIN")
        return _answers_of(db, Path(path)), list(_answers(db))


_SELECT = "SELECT id, annotator, group_id, left, right, criterion, purpose, known, asked_at FROM question"


def _exclusive(path: Path) -> TextIO:
    """A lock beside the file, which the system gives back however the process ends."""
    try:
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"the answers {path} cannot be opened or created: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"another session is writing to {path}; end it, or name another file") from error
    return lock


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)


def _question(row: tuple[int, str, str, str, str, str, Purpose, float | None, float]) -> Question:
    id, annotator, group, left, right, criterion, purpose, known, asked_at = row
    return Question(
        id=id,
        annotator=annotator,
        group=group,
        left=left,
        right=right,
        criterion=criterion,
        purpose=purpose,
        known=known,
        asked_at=asked_at,
    )


def _answers(db: sqlite3.Connection) -> Iterator[Answer]:
    columns = _SELECT.replace(" FROM", ", verdict, response_s, answered_at FROM")
    for *asked, verdict, response_s, answered_at in db.execute(
        f"{columns} WHERE verdict IS NOT NULL ORDER BY id"
    ):
        yield Answer(
            question=_question(tuple(asked)),
            verdict=verdict,
            response_s=response_s,
            answered_at=answered_at,
        )


def _answers_of(db: sqlite3.Connection, path: Path) -> AnswersOf:
    meta = dict(db.execute("SELECT name, value FROM meta"))
    if meta.get("format_version") != str(FORMAT_VERSION):
        raise DatasetError(
            f"{path}: its format is version {meta.get('format_version')}; this is {FORMAT_VERSION}"
        )
    return AnswersOf(data=meta["data"], split=meta["split"], fingerprint=meta["fingerprint"])


@contextmanager
def _of_answers(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, KeyError) as error:
        raise DatasetError(f"{path} is not a file of answers, or is damaged: {error}") from error
