"""One image of a source: how it is named in a row, checked, and kept until the dataset is written."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_recipes.pipeline.judgements import ImageRef
from prefrm import media
from prefrm.errors import DataError, MediaError
from prefrm.records import SURROGATE

__all__ = ["INLINE", "Kept", "PackWriter", "broken", "keep", "reference"]

INLINE = "sha256:"  # begins the name of an image that stands in a row, and not in a file

RECENT = 4096  # digests of images that a process recognises without a query to the spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An image that was checked: digest of its bytes, and the piece of a file in which they are.

    `problem` says why it cannot be used; digest and piece are empty then. `stamp` is that of its store
    (`Images.stamp`).
    """

    digest: str = ""
    file: str = ""
    offset: int = 0
    length: int = 0
    problem: str = ""
    stamp: str = ""


def reference(image: ImageRef) -> bytes | str:
    """The bytes of an image, or its path; without either, no bytes, which `keep` calls broken.

    Raises:
        DataError: it is a URL, or neither an image nor a path.
    """
    if isinstance(image, Mapping):
        data = image.get("bytes")
        image = data if data is not None else image.get("path")
    if image is None:
        return b""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | Path) or not str(image).strip():
        raise DataError(f"expected an image, as bytes or a path; received {image!r:.60}")
    text = str(image).strip()
    if media.URL.match(text):
        raise DataError(
            f"an image is a URL, {text[:60]}; nothing is fetched: download the image and give its path"
        )
    if "\0" in text:
        raise DataError(f"a path has a NUL character in it: {ascii(text)[:60]}")
    if SURROGATE.search(text):
        raise DataError(f"a path is not valid Unicode text: {ascii(text)[:60]}")
    return text


def keep(data: bytes, pack: "PackWriter", name: str = "") -> Kept:
    """Check that an image can be decoded, and append it to a pack; `name` is its path, if it has one."""
    if not data and not name:
        return Kept(problem="the row has no image")
    try:
        data = media.convert(data)
        media.verify(data)
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
        self._file: BinaryIO | None = None
        self._seen: dict[str, Kept] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder,)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, data: bytes) -> Kept:
        """Append an image, unless it was among the last ones."""
        digest = media.digest(data)
        if (before := self._seen.get(digest)) is not None:
            return before
        if self._file is None:
            # Without a buffer: what is committed to the spool has been written.
            self._file = self._path.open("ab", buffering=0)
        kept = Kept(digest=digest, file=str(self._path), offset=self._file.tell(), length=len(data))
        # On a full disk, the first part of the data is written.
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._seen[digest] = kept
        if len(self._seen) > RECENT:
            del self._seen[next(iter(self._seen))]
        return kept
