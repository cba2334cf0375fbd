"""Rows of webdataset tars and members of tar files, read from front to back, compressed or not.

The members of a webdataset tar that share a name up to the first dot are one row: `0001.jpg_0.jpg` and
`0001.label_0.txt` give {"__key__": "0001", "jpg_0.jpg": b"...", "label_0.txt": "1.0"}. Members whose names
end in .txt are text, those in .json are parsed, all others are bytes.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Self

from data_recipes.readers.part import Numbered, Row
from prefrm.errors import DataError, DatasetError

__all__ = ["Joined", "Member", "read_webdataset", "tar_members"]

MAX_MEMBER_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
# Of members whose data describes the next one.
HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def tar_members(
    files: Sequence[IO[bytes]], name: str, wanted: Callable[[str], bool] = lambda path: True
) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the regular files in a tar that may be split into pieces; nothing is unpacked.

    Args:
        files: the pieces, in order.
        name: names the tar in an error.
        wanted: whether the file of that path is read. One that is too long is cut behind `MAX_MEMBER_BYTES`.

    Raises:
        DatasetError: it is not a tar file or ends too early.
    """
    try:
        with tarfile.open(fileobj=io.BufferedReader(Joined(files)), mode="r|*", tarinfo=Member) as archive:
            while (member := archive.next()) is not None:
                # `tarfile` keeps every member that it has read, in a list that its type stubs do not know.
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isfile() and wanted(member.name):
                    content = archive.extractfile(member)
                    assert content is not None, "a regular file has content"
                    yield member.name, content.read(MAX_MEMBER_BYTES + 1)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{name} is not a tar file, or ends too early: {error}") from error


class Member(tarfile.TarInfo):
    """A member of a tar whose damaged header is an error, where `tarfile` takes it for the end of the tar.

    What `tarfile` reads whole before it gives a member, long names and records of attributes, is bounded.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The member of a header. Raises `tarfile.ReadError` if what describes it is too long."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADER_TYPES and member.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {member.size} bytes; the limit is {MAX_HEADER_BYTES}")
        return member

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """The next member. Raises `tarfile.ReadError` if its header is damaged."""
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            # Type stubs know none of its kinds.
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise
            raise tarfile.ReadError(f"a header is damaged: {error}") from error


class Joined(io.RawIOBase):
    """Several files as one, such as the pieces of `images.tar.gz.00`, `.01`, ..."""

    def __init__(self, files: Sequence[IO[bytes]]) -> None:
        self._files = list(files)

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read at most one buffer; 0 at the end of the last file."""
        while self._files:
            data = self._files[0].read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._files.pop(0).close()
        return 0


def read_webdataset(path: Path) -> Iterator[Numbered]:
    """(number, row) of a tar. Raises `DatasetError` if it is not one or ends too early."""
    with _opened(path) as file:
        members = tar_members([file], str(path))
        for n, (key, row) in enumerate(groupby(members, key=lambda member: _key(member[0])[0])):
            yield n, _row(key, row)


def _row(key: str, members: Iterator[tuple[str, bytes]]) -> Row | DataError:
    row: Row = {"__key__": key}
    for name, data in members:
        field = _key(name)[1]
        if len(data) > MAX_MEMBER_BYTES:
            return DataError(f"{name} has more than {MAX_MEMBER_BYTES} bytes")
        try:
            row[field] = _value(field, data)
        except ValueError as error:
            return DataError(f"{name} is not valid: {error}")
    return row


def _value(field: str, data: bytes) -> Any:
    if field.endswith("json"):
        return json.loads(data)
    return data.decode("utf-8") if field.endswith("txt") else data


def _key(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, field = file.partition(".")
    return f"{folder}{slash}{stem}", field


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
        yield file
