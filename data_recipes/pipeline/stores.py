"""Stores of named images and videos: a folder, a zip or tar file, a repository on the Hub, a compressed tar.

A compressed tar can only be read from front to back, so it is a stream of members and not a store to look
into.
"""

import os
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from data_recipes.readers.archives import Member, tar_members
from data_recipes.readers.hub import HUB, hub_commit, hub_files, hub_image, open_hub_file
from data_recipes.readers.part import stamp
from prefrm import media
from prefrm.errors import ConfigError, DataError, DatasetError, MediaError

__all__ = ["FileStore", "TarStream", "open_store"]


WHOLE = (".tar.gz", ".tgz", ".tar")
# `hf://org/name[@revision]/pattern`; of revisions, only references of the Hub (`refs/...`) have slashes here.
HUB_PATTERN = re.compile(r"(hf://[^/]+/[^/@]+(?:@(?:refs/\w+/[^/]+|[^/]+))?)/(.*(?:[*?\[]|\.tar|\.tgz).*)")


class FileStore(Protocol):
    """A store of named images and videos, sent to worker processes: it opens nothing before it is used."""

    def name(self, path: str, folder: Path | None) -> str:
        """The canonical name of the file at `path`, which a row in a file of that folder gives."""

    def read(self, name: str) -> bytes:
        """The encoded image or video. Raises `MediaError`, which names it."""

    def place(self, name: str) -> tuple[str, int] | None:
        """The file on this disk that holds its bytes unchanged, and their offset; None if there is none."""

    def stamp(self, name: str) -> str:
        """A text that changes with the file or the repository that it is read from."""


@dataclass(frozen=True)
class _Folder:
    """Files below a folder, or, if it is None, below that of the file whose row names them."""

    root: Path | None

    def name(self, path: str, folder: Path | None) -> str:
        root = self.root or folder
        if root is None:
            raise DataError(
                f"{path[:60]} is a relative path without a folder on this machine; "
                "give the folder: --set images="
            )
        return os.path.normpath(os.path.join(root, path))

    def read(self, name: str) -> bytes:
        return media.read_bytes(name)

    def place(self, name: str) -> tuple[str, int] | None:
        return os.path.abspath(name), 0

    def stamp(self, name: str) -> str:
        return _stamp(Path(name))


class _Archive:
    """Members of an archive, by their normalized paths."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    def name(self, path: str, folder: Path | None) -> str:
        return posixpath.normpath(path)

    def place(self, name: str) -> tuple[str, int] | None:
        return None

    def stamp(self, name: str) -> str:
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        return _stamp(self._path)

    def _missing(self, name: str) -> MediaError:
        return MediaError(f"{self._path} has no member {name}")


class _Zip(_Archive):
    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise self._missing(name)
        try:
            with self._archive.open(self._members[name]) as file:
                data = _read_bounded(file, self._members[name].file_size)
        except MediaError:
            raise
        # A damaged or encrypted member, or one that is compressed in another way, is of many kinds.
        except Exception as error:
            raise MediaError(f"{name} cannot be read from {self._path}: {error}") from error
        return data

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{self._path} cannot be read: {error}") from error

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        return {posixpath.normpath(member.filename): member for member in self._archive.infolist()}


class _Tar(_Archive):
    """Members of an uncompressed tar, which stay where they are."""

    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise self._missing(name)
        offset, size = self._members[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            return _read_bounded(file, size)

    def place(self, name: str) -> tuple[str, int] | None:
        return str(self._path.absolute()), self._members[name][0]

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each regular file."""
        try:
            with tarfile.open(self._path, "r:", tarinfo=Member) as archive:
                files = (member for member in archive if member.isreg())
                return {posixpath.normpath(file.name): (file.offset_data, file.size) for file in files}
        except (OSError, tarfile.TarError) as error:
            raise DatasetError(f"{self._path} cannot be read: {error}") from error


@dataclass(frozen=True)
class _HubFiles:
    """Single files of a dataset's repository; each is downloaded when it is read."""

    source: str

    def name(self, path: str, folder: Path | None) -> str:
        return posixpath.normpath(path)

    def place(self, name: str) -> tuple[str, int] | None:
        return None

    def stamp(self, name: str) -> str:
        return self._commit

    @cached_property
    def _commit(self) -> str:
        return hub_commit(self.source)

    def read(self, name: str) -> bytes:
        if name.startswith(("/", "../")):
            raise MediaError(f"{name} is not a path inside {self.source}")
        return media.read_bytes(hub_image(self.source, name))


@dataclass(frozen=True)
class TarStream:
    """Members of compressed tars, here or on the Hub: read once, from front to back.

    Files that are all called `.tar.gz`, `.tgz` or `.tar` are archives each; otherwise they are the pieces of
    one.
    """

    source: str
    pieces: tuple[str, ...]

    def name(self, path: str, folder: Path | None) -> str:
        """The normalized path in the archive."""
        return posixpath.normpath(path)

    def place(self, name: str) -> tuple[str, int] | None:
        """None: its members are compressed."""
        return None

    def stamp(self, name: str) -> str:
        """Of all its files: none is read again for one member."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        if self.source.startswith(HUB):
            return hub_commit(self.source)
        return " ".join(_stamp(Path(piece)) for piece in self.pieces)

    def read(self, name: str) -> bytes:
        """Raise `MediaError`: a member that `members` did not yield does not exist."""
        raise MediaError(f"{self.source} has no member {name}")

    def members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each file whose name is wanted. Raises `DatasetError`."""
        whole = all(piece.endswith(WHOLE) for piece in self.pieces)
        for pieces in [(piece,) for piece in self.pieces] if whole else [self.pieces]:
            yield from self._members(pieces, wanted)

    def _members(self, pieces: Sequence[str], wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        with ExitStack() as stack:
            opened = (
                [open_hub_file(self.source, piece) for piece in pieces]
                if self.source.startswith(HUB)
                else [stack.enter_context(open(piece, "rb")) for piece in pieces]
            )
            for path, data in tar_members(opened, self.source, lambda path: wanted(posixpath.normpath(path))):
                yield posixpath.normpath(path), data


def _read_bounded(file: IO[bytes], size: int) -> bytes:
    """The next `size` bytes. Raises `MediaError` if that is beyond the limit of their kind."""
    start = file.read(min(media.SNIFFED_BYTES, size))
    media.check_size(size, media.limits_of(start))
    return start + file.read(size - len(start))


def _stamp(path: Path) -> str:
    try:
        return stamp(path)
    except OSError:
        return "absent"


def open_store(spec: str, archives: str = "") -> FileStore:
    """The store that `--set images=` names; empty: paths are relative to the file that names them.

    Args:
        spec: a folder, an archive or the pattern of several, or `hf://org/name[@revision]`, perhaps with the
            pattern of its archives behind a slash.
        archives: the pattern of the archives of a repository on the Hub, if `spec` is its source.

    Raises:
        ConfigError: there is no such folder or archive.
    """
    if spec.startswith(HUB):
        if not archives and (found := HUB_PATTERN.fullmatch(spec)):
            spec, archives = found.groups()
        return _open_hub(spec, archives)
    place = Path(spec)
    if not spec or place.is_dir():
        return _Folder(place if spec else None)
    if place.is_file() and place.suffix.lower() == ".zip":
        return _Zip(place)
    if place.is_file() and place.suffix.lower() == ".tar":
        return _Tar(place)
    if pieces := sorted(str(path) for path in place.parent.glob(place.name)):
        return TarStream(spec, tuple(pieces))
    raise ConfigError(
        f"images={spec} is not a folder, a .zip, .tar or .tar.gz file, or the pattern of such files or pieces"
    )


def _open_hub(source: str, archives: str) -> FileStore:
    if not archives:
        return _HubFiles(source)
    if not (pieces := hub_files(source, archives)):
        raise ConfigError(
            f"{source} has no file {archives}; give the pattern of its archives: --set images={source}/..."
        )
    return TarStream(source, tuple(pieces))
