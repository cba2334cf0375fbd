"""The first pass: every row of a source becomes entries of the spool, every content is checked and hashed."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from data_recipes.pipeline.contents import (
    Kept,
    PackWriter,
    broken,
    check,
    inline_name,
    keep,
    keep_text,
    reference,
)
from data_recipes.pipeline.judgements import ContentRef, Judgement, LeftOut, Statement, Text
from data_recipes.pipeline.spool import Entry, Spool
from data_recipes.pipeline.stores import FileStore, TarStream
from data_recipes.pipeline.workers import in_order
from data_recipes.readers.part import Numbered, Part, Row
from prefrm import media
from prefrm.errors import ConfigError, DataError, DatasetError, MediaError, PrefrmError
from prefrm.records import SURROGATE

__all__ = ["BAD_ROW", "FileReader", "Judge", "Scanner", "scan_files", "scan_rows", "statements"]

Judge: TypeAlias = Callable[[Row, Any], Iterable[Statement] | Statement]
"""From a row and the options of its recipe to statements.

Raises `DataError` if the row is not valid, and `ConfigError`, which ends the build, if the options are not.
"""

Advance: TypeAlias = Callable[[int, int | None], None]
"""Called with how much is done and how much there is, None if that is not known."""

BAD_ROW = "bad row"
SPLIT = "__split__"  # in a row: the split of the source that it is in, or None
ROWS, NAMES = 128, 32  # of one job
ROW_BYTES = 8 * 2**20


class _RowJob(NamedTuple):
    """Consecutive rows of one part."""

    part: int
    name: str
    split: str | None
    folder: Path | None
    rows: list[Numbered]


@dataclass
class Scanner:
    """Work on rows: sent to other processes, so it holds no open file."""

    judge: Judge
    options: Any
    files: FileStore
    pack: PackWriter

    def __call__(self, job: _RowJob) -> tuple[list[Entry], dict[str, Kept]]:
        """The entries of the rows, and the contents that stand in them."""
        entries: list[Entry] = []
        contents: dict[str, Kept] = {}
        for number, row in job.rows:
            name = f"{job.name}:{number}"
            try:
                said = self._statements(row, job.split)
                entries += [
                    self._entry(f"{name}.{n}" if n else name, one, job, contents)
                    for n, one in enumerate(said)
                ]
            except DataError as error:
                # A value that is quoted may not be valid Unicode.
                detail = str(error).encode("utf-8", "backslashreplace").decode()
                entries.append(Entry(name=name, prompt=None, reason=BAD_ROW, detail=detail))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
        return entries, contents

    def _statements(self, row: Row | DataError, split: str | None) -> list[Statement]:
        if isinstance(row, DataError):
            raise row
        try:
            return list(statements(self.judge, {SPLIT: split, **row}, self.options))
        except KeyError as error:
            raise DataError(_unknown(error.args[0], row)) from error
        except PrefrmError:
            raise
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"a value has an unexpected type or format: {error}") from error

    def _entry(self, name: str, said: Statement, job: _RowJob, contents: dict[str, Kept]) -> Entry:
        if isinstance(said, LeftOut):
            prompt = _unicode(said.prompt, "prompt") if isinstance(said.prompt, str) else ""
            return Entry(name=name, prompt=prompt.strip() or None, reason=said.reason)
        if not isinstance(said.prompt, str) or not said.prompt.strip():
            raise DataError("prompt is missing or empty")

        def place(content: ContentRef) -> str:
            found = reference(content)
            if isinstance(found, str):
                return self.files.name(found, job.folder)
            key = inline_name(found)
            if key not in contents:
                contents[key] = (
                    keep_text(found, self.pack) if isinstance(found, Text) else keep(found, self.pack)
                )
            return key

        entry = Entry(
            name=name,
            prompt=_unicode(said.prompt, "prompt").strip(),
            tags=_unicode(json.dumps(dict(said.tags), sort_keys=True, ensure_ascii=False), "a tag"),
            criterion=_unicode(said.criterion, "a criterion").strip(),
            context=tuple(map(place, said.context)),
        )
        cluster = _unicode(said.set, "a set")
        if isinstance(said, Judgement):
            if not 0 <= said.p <= 1 or not 0 < said.weight < math.inf:
                raise DataError(
                    f"p must be in [0, 1] and the weight positive; received {said.p}, {said.weight}"
                )
            return entry._replace(
                first=place(said.first),
                second=place(said.second),
                value=float(said.p),
                weight=float(said.weight),
                cluster=cluster,
                family=_unicode(said.family, "a family"),
            )
        if said.score is not None and not math.isfinite(said.score):
            raise DataError(f"a score must be a number; received {said.score}")
        return entry._replace(
            first=place(said.candidate),
            value=None if said.score is None else float(said.score),
            weight=float(said.deviation),
            cluster=cluster,
        )


def statements(judge: Judge, row: Row, options: Any) -> Iterator[Statement]:
    """What a row says: of several axes, each with its criterion."""
    for criterion, of_axis in options.each_axis():
        found = judge(row, of_axis)
        for one in [found] if isinstance(found, Statement) else found:
            yield replace(one, criterion=criterion) if criterion and not isinstance(one, LeftOut) else one


@dataclass
class FileReader:
    """Work on the names of images and videos: sent to other processes."""

    files: FileStore
    pack: PackWriter

    def __call__(self, names: list[str]) -> dict[str, Kept]:
        """The checked contents, by name."""
        # The stamp is taken first: a file that changes while it is read has another one later.
        return {name: replace(self._read(name), stamp=stamp) for name, stamp in map(self._stamped, names)}

    def _stamped(self, name: str) -> tuple[str, str]:
        return name, self.files.stamp(name)

    def _read(self, name: str) -> Kept:
        data = b""
        try:
            data = self.files.read(name)
            checked, kind = check(data)
        except MediaError as error:
            return broken(error, name, data)
        if checked is data and (place := self.files.place(name)) is not None:
            digest = media.digest(data)
            return Kept(kind=kind, digest=digest, file=place[0], offset=place[1], length=len(data))
        return self.pack.add(checked, kind)


def scan_rows(
    spool: Spool,
    parts: Sequence[Part],
    scanner: Scanner,
    processes: int,
    progress: Advance,
    *,
    strict: bool = False,
) -> None:
    """Read every row that is not yet in the spool.

    Raises:
        DatasetError: a part cannot be read, or, unless `strict` leaves this to the caller, none of the first
            `ROWS` rows is valid: the source is of another format. Then nothing was committed.
    """
    done = sum(spool.rows_done(n) for n in range(len(parts)))
    is_known = strict or done > 0
    held: list[tuple[_RowJob, list[Entry], dict[str, Kept]]] = []
    total = None if any(part.total is None for part in parts) else sum(part.total or 0 for part in parts)
    jobs = (job for n, part in enumerate(parts) for job in _row_jobs(n, part, spool.rows_done(n)))
    for job, (entries, contents) in in_order(scanner, jobs, processes):
        held.append((job, entries, contents))
        is_known = is_known or any(entry.reason != BAD_ROW for entry in entries)
        if not is_known:
            if sum(len(each.rows) for each, *_ in held) >= ROWS:
                break
            continue
        for job, entries, contents in held:
            spool.add(job.part, len(job.rows), parts[job.part].split, entries, contents)
            done += len(job.rows)
            progress(done, total)
        held.clear()
    if held:
        job, entries, _ = held[0]
        _refuse_format(parts[job.part], entries[0])


def _refuse_format(part: Part, first: Entry) -> NoReturn:
    found = f"; the columns of {part.name} are {', '.join(part.columns)}" if part.columns else ""
    raise DatasetError(f"no row has the format that the recipe reads: {first.name}: {first.detail}{found}")


def scan_files(spool: Spool, reader: FileReader, processes: int, progress: Advance) -> None:
    """Read every image and video that an entry names and that is not yet in the spool.

    Raises:
        DatasetError: an archive cannot be read.
    """
    # A whole archive is not read again for a member that it does not have.
    spool.forget_stale(reader.files.stamp, retry=not isinstance(reader.files, TarStream))
    total, done = spool.count_unread(), 0
    if isinstance(reader.files, TarStream):
        _scan_members(spool, reader.files, reader.pack, total, progress)
    for names, contents in in_order(reader, spool.unread(NAMES), processes):
        spool.add_contents(contents)
        done += len(names)
        progress(done, total)


def _scan_members(spool: Spool, stream: TarStream, pack: PackWriter, total: int, progress: Advance) -> None:
    for done, (name, data) in enumerate(stream.members(spool.is_unread) if total else (), 1):
        spool.add_contents({name: replace(keep(data, pack, name), stamp=stream.stamp(name))})
        progress(done, total)


def _row_jobs(number: int, part: Part, start: int) -> Iterator[_RowJob]:
    rows: list[Numbered] = []
    size = 0
    for row in part.read(start):
        rows.append(row)
        size += _bytes(row[1])
        if len(rows) == ROWS or size >= ROW_BYTES:
            yield _RowJob(number, part.name, part.split, part.folder, rows)
            rows, size = [], 0
    if rows:
        yield _RowJob(number, part.name, part.split, part.folder, rows)


def _unknown(key: Any, row: Row) -> str:
    """What a `KeyError` means: a column that the row lacks, or a value that the recipe's dictionary lacks."""
    if isinstance(key, str) and key not in row and key not in row.values():
        return f"there is no column {key!r}; the row has {', '.join(map(str, row)) or 'none'}"
    return f"unknown value {key!r}; the columns of the row are {', '.join(map(str, row))}"


def _bytes(value: Any) -> int:
    """Bytes of the images and videos in a row."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):  # `Mapping` takes longer to ask for
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list) else 0


def _unicode(text: str, name: str) -> str:
    if SURROGATE.search(text):
        raise DataError(f"{name} is not valid Unicode text: {ascii(text)[:60]}")
    return text
