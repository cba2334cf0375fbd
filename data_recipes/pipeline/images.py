"""Where the images of a source are, and how one is checked and kept.

Images are named by paths or stand in the rows. A store finds those that are named: a folder, a zip or tar
file, or a repository on the Hub. Compressed tars can only be read from front to back: they are streams of
members.
"""

import os
import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from data_recipes.pipeline.judgements import ImageRef
from data_recipes.readers.archives import tar_members
from data_recipes.readers.hub import HUB, hub_file, hub_files, open_hub_file
from prefrm import media
from prefrm.errors import ConfigError, DataError, DatasetError, MediaError

__all__ = [
    "Folder",
    "Images",
    "Kept",
    "PackWriter",
    "TarStream",
    "broken",
    "keep",
    "open_images",
    "reference",
]


class Images(Protocol):
    """A store of named images. It is sent to worker processes, so it opens nothing before it is used."""

    def name(self, path: str, folder: Path | None) -> str:
        """One name for each image, however a row in a file of that folder spells its path."""

    def read(self, name: str) -> bytes:
        """The encoded image. Raises `MediaError`, which names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An image that was checked: digest of its bytes, and the piece of a file in which they are.

    `problem` says why it cannot be used; the rest is empty then.
    """

    digest: str = ""
    file: str = ""
    offset: int = 0
    length: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Folder:
    """Image files below a folder, or, if it is None, below that of the file whose row names them."""

    root: Path | None

    def name(self, path: str, folder: Path | None) -> str:
        """The normalized path."""
        return os.path.normpath(os.path.join(self.root or folder or Path(), path))

    def read(self, name: str) -> bytes:
        """The content of the file."""
        return media.read_bytes(name)


class _Archive:
    """Members of a zip or of an uncompressed tar file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def name(self, path: str, folder: Path | None) -> str:
        """The normalized path in the archive."""
        return posixpath.normpath(path)

    def read(self, name: str) -> bytes:
        """The content of a member, at most as many bytes as an image may have."""
        if name not in self._members:
            raise MediaError(f"{self._path} has no member {name}")
        with self._open(self._members[name]) as file:
            data = file.read(media.DEFAULT_LIMITS.max_bytes + 1)
        media.check_size(len(data))
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    @cached_property
    def _archive(self) -> Any:
        try:
            return zipfile.ZipFile(self._path) if self._zipped else tarfile.open(self._path, "r:")
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{self._path} cannot be read: {error}") from error

    @cached_property
    def _members(self) -> Mapping[str, Any]:
        found = self._archive.infolist() if self._zipped else self._archive.getmembers()
        names = (posixpath.normpath(member.filename if self._zipped else member.name) for member in found)
        return dict(zip(names, found, strict=True))

    @property
    def _zipped(self) -> bool:
        return self._path.suffix.lower() == ".zip"

    def _open(self, member: Any) -> IO[bytes]:
        file: IO[bytes] | None = (
            self._archive.open(member) if self._zipped else self._archive.extractfile(member)
        )
        if file is None:
            raise MediaError(f"{self._path}: {member.name} is not a regular file")
        return file


@dataclass(frozen=True)
class _HubImages:
    """Single files of a dataset's repository; each is downloaded when it is read."""

    source: str

    def name(self, path: str, folder: Path | None) -> str:
        """The normalized path in the repository."""
        return posixpath.normpath(path)

    def read(self, name: str) -> bytes:
        """The content of the file."""
        try:
            return media.read_bytes(hub_file(self.source, name))
        except DatasetError as error:
            raise MediaError(str(error)) from error


@dataclass(frozen=True)
class TarStream:
    """Images in a compressed tar, perhaps in pieces, here or on the Hub: read once, from front to back."""

    source: str
    pieces: tuple[str, ...]

    def name(self, path: str, folder: Path | None) -> str:
        """The normalized path in the archive."""
        return posixpath.normpath(path)

    def read(self, name: str) -> bytes:
        """It has no member by name but those that `members` came across."""
        raise MediaError(f"{self.source} has no member {name}")

    def members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of each file whose name is wanted. Raises `DatasetError`."""
        with ExitStack() as stack:
            opened = (
                [open_hub_file(self.source, piece) for piece in self.pieces]
                if self.source.startswith(HUB)
                else [stack.enter_context(open(piece, "rb")) for piece in self.pieces]
            )
            for path, data in tar_members(opened, self.source, lambda path: wanted(posixpath.normpath(path))):
                yield posixpath.normpath(path), data


def open_images(spec: str) -> Images:
    """The store that `--set images=` names; empty: paths are relative to the file that names them.

    Raises:
        ConfigError: there is no such folder or archive.
    """
    if spec.startswith(HUB):
        owner, _, path = spec.removeprefix(HUB).partition("/")
        repository, _, pattern = path.partition("/")
        source = f"{HUB}{owner}/{repository}"
        return TarStream(source, tuple(hub_files(source, pattern))) if pattern else _HubImages(source)
    place = Path(spec)
    if not spec or place.is_dir():
        return Folder(place if spec else None)
    if place.suffix.lower() in (".zip", ".tar") and place.is_file():
        return _Archive(place)
    if pieces := sorted(str(path) for path in place.parent.glob(place.name)):
        return TarStream(spec, tuple(pieces))
    raise ConfigError(
        f"images={spec} is not a folder, a .zip, .tar or .tar.gz file, or the pattern of pieces of one"
    )


def reference(image: ImageRef) -> bytes | str:
    """The bytes of an image, or its path. Raises `DataError` if the row has neither, or a URL."""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | Path) or not str(image).strip():
        raise DataError(f"there is no image in the place of one: {image!r:.60}")
    text = str(image).strip()
    if media.URL.match(text):
        raise DataError(
            f"an image is a URL, {text[:60]}; nothing is fetched: download the image and give its path"
        )
    if "\0" in text:
        raise DataError(f"a path has a NUL character in it: {ascii(text)[:60]}")
    return text


def keep(data: bytes, pack: "PackWriter", name: str = "") -> Kept:
    """Check an image by decoding it, and append it to a pack; `name` is its path, if it has one."""
    try:
        data = media.normalize(data)
        media.decode(data)
    except MediaError as error:
        return broken(error, name)
    return pack.add(data)


def broken(error: MediaError, name: str) -> Kept:
    """An image that cannot be used; the problem names it."""
    return Kept(problem=str(error) if name in str(error) else f"{name}: {error}")


class PackWriter:
    """A file of images one after another, of one process: one file for each image would be millions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"images-{os.getpid()}.pack"
        self._seen: dict[str, Kept] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder,)

    def add(self, data: bytes) -> Kept:
        """Append an image, unless it was among the last ones."""
        digest = media.digest(data)
        if (before := self._seen.get(digest)) is not None:
            return before
        with self._path.open("ab") as file:
            kept = Kept(digest=digest, file=str(self._path), offset=file.tell(), length=len(data))
            file.write(data)
        self._seen[digest] = kept
        if len(self._seen) > RECENT:
            del self._seen[next(iter(self._seen))]
        return kept


RECENT = 4096  # images that a process recognises without asking the spool
