"""The state of a build on disk: judgements, prompts and contents in SQLite, bytes of contents in packs beside
it.

Commits are atomic: a build that was killed resumes after the last committed rows. Rows and contents are
numbered in the order of the source, whatever the number of processes, so a build has one result.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_recipes.pipeline.contents import INLINE, Kept
from data_recipes.plan import InterruptedBuild
from prefrm import media
from prefrm.errors import DatasetError
from prefrm.records import prompt_key

__all__ = ["Entry", "Spool"]

# One build at a time. A commit reaches the disk with the next checkpoint: a kill loses nothing. Digests come
# in no order, so each commit changes pages all over their index: they are kept in memory, and a checkpoint
# waits for 64 MB of them.
PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 16384;
"""
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE part (id INTEGER PRIMARY KEY, rows INTEGER);
CREATE TABLE prompt (
    id INTEGER PRIMARY KEY, key TEXT, context TEXT, text TEXT, identity TEXT, split TEXT,
    UNIQUE (key, context));
CREATE TABLE context (prompt INTEGER, place INTEGER, content INTEGER, PRIMARY KEY (prompt, place));
CREATE TABLE content (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, kind TEXT, digest TEXT, file TEXT, offset INTEGER,
    length INTEGER, problem TEXT, stamp TEXT);
CREATE TABLE statement (
    id INTEGER PRIMARY KEY, name TEXT, prompt INTEGER, split TEXT, first INTEGER, second INTEGER,
    value REAL, weight REAL, cluster TEXT, tags TEXT, reason TEXT, detail TEXT, family TEXT, criterion TEXT,
    place TEXT, asked INTEGER);
"""
"""Of `prompt`: `key` is `prompt_key` of the text alone, `context` the ids of its context images in the order
of the row, and `identity`, which `settle` fills in, `prompt_key` with their digests. Of `statement`, `place`
and `asked`, the first prompt of that identity, are filled in by `settle`, too."""
INDICES = """
CREATE INDEX IF NOT EXISTS content_digest ON content (digest);
CREATE INDEX IF NOT EXISTS context_content ON context (content);
CREATE INDEX IF NOT EXISTS prompt_identity ON prompt (identity);
CREATE INDEX IF NOT EXISTS statement_place ON statement (place, asked, criterion, id);
"""
FILE = "spool.sqlite"


class Entry(NamedTuple):
    """One judgement, rating or row that is left out, as the spool holds it.

    Attributes:
        name: of its row.
        prompt: the text; None if the row was left out before it was read.
        first, second: names of contents; `second` is None for a rating, both are for what is left out.
        value: p of a judgement, score of a rating.
        weight: weight of a judgement, deviation of a rating.
        cluster: the set of a judgement or a rating.
        tags: as JSON.
        reason: why it is left out; empty otherwise.
        detail: what is left out, in words.
        family: of a judgement; empty without one.
        criterion: empty without one.
        context: names of contents.
    """

    name: str
    prompt: str | None
    first: str | None = None
    second: str | None = None
    value: float | None = None
    weight: float = 1.0
    cluster: str = ""
    tags: str = "{}"
    reason: str = ""
    detail: str = ""
    family: str = ""
    criterion: str = ""
    context: tuple[str, ...] = ()


class Spool:
    """A spool in a folder of its own, which other builds do not write to.

    Attributes:
        folder: holds the database and the packs.
        db: the database, in autocommit mode.
    """

    def __init__(self, folder: Path, stamps: Sequence[str]) -> None:
        """Open the spool of an earlier build of the same parts, or start a new one.

        Raises:
            InterruptedBuild: another build is writing to it.
        """
        self.folder = folder
        try:
            self.db = _connect(folder)
            if not self._is_of(stamps):
                self.db.close()
                shutil.rmtree(folder)
                self.db = _connect(folder)
                self.db.executescript(PRAGMAS + SCHEMA)
                self.set_meta("stamps", list(stamps))
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise InterruptedBuild(f"another build is running in {folder}: {error}") from error
        self._prompts: dict[tuple[str, str], int] = {}
        self._packs: dict[str, BinaryIO] = {}

    def close(self) -> None:
        """Close the database and the packs."""
        self.db.close()
        for pack in self._packs.values():
            pack.close()

    def _is_of(self, stamps: Sequence[str]) -> bool:
        """Whether the database is whole and was made of these parts."""
        try:
            self.db.executescript(PRAGMAS)
            made = self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            return made is not None and bool(self.meta("stamps") == list(stamps))
        except sqlite3.OperationalError:
            raise
        # The power failed while it was written.
        except sqlite3.DatabaseError:
            return False

    def meta(self, name: str) -> Any:
        """A value that was set, or None."""
        found = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def set_meta(self, name: str, value: Any) -> None:
        """Set a value; `json` must know its type."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def has_rows(self) -> bool:
        """Whether rows of any part are committed."""
        return self.db.execute("SELECT 1 FROM part").fetchone() is not None

    def rows_done(self, part: int) -> int:
        """How many rows of a part are committed."""
        found = self.db.execute("SELECT rows FROM part WHERE id = ?", (part,)).fetchone()
        return int(found[0]) if found else 0

    def add(
        self, part: int, rows: int, split: str | None, entries: Iterable[Entry], contents: Mapping[str, Kept]
    ) -> None:
        """Commit the entries of the next `rows` rows of a part, and the contents that stood in them."""
        with self.transaction():
            numbers = {name: self._content(name, kept) for name, kept in contents.items()}
            self.db.executemany(
                "INSERT INTO statement (name, prompt, split, first, second, value, weight, cluster, tags,"
                " reason, detail, family, criterion) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._row(entry, split, numbers) for entry in entries],
            )
            self.db.execute("INSERT OR REPLACE INTO part VALUES (?, ?)", (part, self.rows_done(part) + rows))

    def add_contents(self, contents: Mapping[str, Kept]) -> None:
        """Commit contents that entries name."""
        with self.transaction():
            self.db.executemany(
                "UPDATE content SET kind = ?, digest = ?, file = ?, offset = ?, length = ?, problem = ?,"
                f" stamp = ? WHERE name = ? AND {UNREAD}",
                [(*_facts(kept), name) for name, kept in contents.items()],
            )

    def forget_stale(self, stamp: Callable[[str], str], *, retry: bool) -> None:
        """Forget what is known of contents that may be others by now; those in rows are known by their bytes.

        Args:
            stamp: of a content by its name; one with another stamp than it had is read again.
            retry: whether broken ones are read again whatever their stamp.
        """
        read = f"FROM content WHERE NOT ({UNREAD}) AND substr(name, 1, {len(INLINE)}) != '{INLINE}'"
        found = self.db.execute(f"SELECT id, name, stamp, problem {read}")
        stale = [
            (number,)
            for number, name, before, problem in found
            if (problem is not None and retry) or stamp(name) != before
        ]
        with self.transaction():
            self.db.executemany("UPDATE content SET digest = NULL, problem = NULL WHERE id = ?", stale)

    def state(self) -> str:
        """A digest of the digests of all contents: with another one, the same rows make other groups."""
        found = hashlib.sha256()
        for (digest,) in self.db.execute("SELECT COALESCE(digest, '') FROM content ORDER BY id"):
            found.update(f"{digest}\n".encode())
        return found.hexdigest()

    def count_unread(self) -> int:
        """How many contents are named and not yet read."""
        return int(self.db.execute(f"SELECT COUNT(*) FROM content WHERE {UNREAD}").fetchone()[0])

    def unread(self, size: int) -> Iterator[list[str]]:
        """The names of contents not yet read, at most `size` at once, in order."""
        last = 0
        while rows := self.db.execute(
            f"SELECT id, name FROM content WHERE id > ? AND {UNREAD} ORDER BY id LIMIT ?", (last, size)
        ).fetchall():
            last = rows[-1][0]
            yield [name for _, name in rows]

    def is_unread(self, name: str) -> bool:
        """Whether an entry names the content, and it was not read yet."""
        return (
            self.db.execute(f"SELECT 1 FROM content WHERE name = ? AND {UNREAD}", (name,)).fetchone()
            is not None
        )

    def read(self, digest: str) -> bytes | str:
        """The encoded image or video, or the text, of a digest. Raises `DatasetError` as `read_file`."""
        found = "SELECT 1 FROM content WHERE digest = ? AND kind = 'text'"
        data = self.read_file(digest)
        return data.decode() if self.db.execute(found, (digest,)).fetchone() else data

    def read_file(self, digest: str) -> bytes:
        """The bytes of a digest.

        Raises:
            DatasetError: they are others than those that were checked.
        """
        file, offset, length = self.db.execute(
            "SELECT file, offset, length FROM content WHERE digest = ? ORDER BY id LIMIT 1", (digest,)
        ).fetchone()
        try:
            data = self._read(file, offset, length)
        except OSError as error:
            raise DatasetError(f"{file} can no longer be read: {error}") from error
        if media.digest(data) != digest:
            raise DatasetError(f"{file} changed while the dataset was built")
        return data

    def _read(self, file: str, offset: int, length: int) -> bytes:
        """A piece of a file; a pack stays open."""
        if os.path.dirname(file) != str(self.folder):
            with open(file, "rb", buffering=0) as opened:
                opened.seek(offset)
                return opened.read(length)
        if file not in self._packs:
            self._packs[file] = open(file, "rb", buffering=0)  # noqa: SIM115
        self._packs[file].seek(offset)
        return self._packs[file].read(length)

    def index(self) -> None:
        """Make what was added quick to find by digest and by split."""
        self.db.executescript(INDICES)

    def transaction(self) -> "sqlite3.Connection | _Transaction":
        """A block that is committed whole or not at all."""
        return _Transaction(self.db)

    def _prompt(self, text: str, context: tuple[int, ...]) -> int:
        found = prompt_key(text), " ".join(map(str, context))
        if (number := self._prompts.get(found)) is None:
            new = self.db.execute(
                "INSERT OR IGNORE INTO prompt (key, context, text) VALUES (?, ?, ?)", (*found, text)
            )
            number = self._number(new, "SELECT id FROM prompt WHERE key = ? AND context = ?", *found)
            self.db.executemany(
                "INSERT OR IGNORE INTO context VALUES (?, ?, ?)",
                [(number, place, content) for place, content in enumerate(context)],
            )
            if len(self._prompts) >= RECENT:
                self._prompts.clear()
            self._prompts[found] = number
        return number

    def _row(self, entry: Entry, split: str | None, numbers: dict[str, int]) -> tuple[Any, ...]:
        """An entry as the database holds it; `numbers` are those of contents, and grow."""
        for name in (*entry.context, entry.first, entry.second):
            if name is not None and name not in numbers:
                numbers[name] = self._content(name, None)
        context = tuple(numbers[name] for name in entry.context)
        prompt = None if entry.prompt is None else self._prompt(entry.prompt, context)
        first, second = (None if n is None else numbers[n] for n in (entry.first, entry.second))
        return (entry.name, prompt, split, first, second, *entry[4:-1])

    def _content(self, name: str, kept: Kept | None) -> int:
        """The number of a content; one that is known already keeps its facts."""
        new = self.db.execute(
            "INSERT OR IGNORE INTO content (name, kind, digest, file, offset, length, problem, stamp)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (name, *_facts(kept)),
        )
        return self._number(new, "SELECT id FROM content WHERE name = ?", name)

    def _number(self, new: sqlite3.Cursor, find: str, *key: str) -> int:
        """The id of a row that was inserted, or else of the one that was there before."""
        if new.rowcount and new.lastrowid is not None:
            return new.lastrowid
        return int(self.db.execute(find, key).fetchone()[0])


def _facts(kept: Kept | None) -> tuple[Any, ...]:
    """Kind, digest, file, offset, length, problem and stamp; all None of a content that was not read yet."""
    if kept is None:
        return (None,) * 7
    place = kept.file, kept.offset, kept.length
    return kept.kind, kept.digest or None, *place, kept.problem or None, kept.stamp


UNREAD = "digest IS NULL AND problem IS NULL"
RECENT = 4096  # prompts whose number is known without asking the database


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        # On a full disk, SQLite has done so itself.
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _connect(folder: Path) -> sqlite3.Connection:
    folder.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(folder / FILE, isolation_level=None, timeout=1.0)
