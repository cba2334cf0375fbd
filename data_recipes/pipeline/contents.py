"""One content of a source, an image, a video or a text: how it is named in a row, checked, and kept until the
dataset is written."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_recipes.pipeline.judgements import ContentRef, Text
from prefrm import media
from prefrm.containers import is_video
from prefrm.errors import DataError, MediaError
from prefrm.records import SURROGATE
from prefrm.video import FrameSampling, read_frames
from prefrm.winmatrix import Kind

__all__ = [
    "INLINE",
    "Kept",
    "PackWriter",
    "broken",
    "check",
    "content_name",
    "inline_name",
    "keep",
    "keep_text",
    "reference",
]

INLINE = "sha256:"  # begins the name of a content that stands in a row, and not in a file
TEXT = "text:"  # follows it in the name of a text

RECENT = 4096  # digests of contents that a process recognises without a query to the spool
FIRST_FRAME = FrameSampling(count=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A content that was checked: digest of its bytes, and the piece of a file in which they are.

    `problem` says why it cannot be used; digest and piece are empty then. `stamp` is that of its store
    (`FileStore.stamp`).
    """

    kind: Kind = "image"
    digest: str = ""
    file: str = ""
    offset: int = 0
    length: int = 0
    problem: str = ""
    stamp: str = ""


def reference(content: ContentRef) -> bytes | str | Text:
    """The bytes of an image or a video, its path, or a text; without any, no bytes, which `keep` calls
    broken.

    Raises:
        DataError: it is a URL, or none of these.
    """
    if isinstance(content, Text):
        return content
    if isinstance(content, Mapping):
        data = content.get("bytes")
        content = data if data is not None else content.get("path")
    if content is None:
        return b""
    if isinstance(content, bytes):
        return content
    if not isinstance(content, str | Path) or not str(content).strip():
        raise DataError(f"expected an image or a video, as bytes or a path; received {content!r:.60}")
    text = str(content).strip()
    if media.URL.match(text):
        raise DataError(f"a path is a URL, {text[:60]}; nothing is fetched: download it and give its path")
    if "\0" in text:
        raise DataError(f"a path has a NUL character in it: {ascii(text)[:60]}")
    if SURROGATE.search(text):
        raise DataError(f"a path is not valid Unicode text: {ascii(text)[:60]}")
    return text


def inline_name(content: bytes | Text) -> str:
    """The name of a content that stands in a row."""
    if isinstance(content, Text):
        return INLINE + TEXT + media.digest(_utf8(content))
    return INLINE + media.digest(content)


def content_name(content: ContentRef) -> str:
    """The path of a content, or a name by the digest of one that stands in a row.

    Raises:
        DataError: as of `reference`.
    """
    found = reference(content)
    return found if isinstance(found, str) else inline_name(found)


def keep(data: bytes, pack: "PackWriter", name: str = "") -> Kept:
    """Check that an image or a video can be decoded, and append it to a pack; `name` is its path, if it has
    one."""
    if not data and not name:
        return Kept(problem="the row has no image or video")
    try:
        return pack.add(*check(data))
    except MediaError as error:
        return broken(error, name, data)


def keep_text(content: Text, pack: "PackWriter") -> Kept:
    """Append a text to a pack."""
    if not content.text.strip():
        return Kept(kind="text", problem="the text is empty")
    return pack.add(_utf8(content), "text")


def check(data: bytes) -> tuple[bytes, Kind]:
    """The bytes to keep of an encoded image (as `media.convert` makes them) or video (as they are), and its
    kind.

    Raises:
        MediaError: it cannot be decoded, or is beyond the limits. Of a video, the packets of all frames are
            counted and the first frame is decoded.
        MissingExtraError: it is a video, and PyAV is not installed.
    """
    if is_video(data):
        read_frames(data, FIRST_FRAME)
        return data, "video"
    data = media.convert(data)
    media.verify(data)
    return data, "image"


def broken(error: MediaError, name: str, data: bytes = b"") -> Kept:
    """A content that cannot be used; the problem names it."""
    kind: Kind = "video" if is_video(data) else "image"
    return Kept(kind=kind, problem=str(error) if name in str(error) else f"{name}: {error}")


def _utf8(content: Text) -> bytes:
    if not isinstance(content.text, str):
        raise DataError(f"expected a text; received {content.text!r:.60}")
    if SURROGATE.search(content.text):
        raise DataError(f"a text is not valid Unicode: {ascii(content.text)[:60]}")
    return content.text.encode()


class PackWriter:
    """A file of contents one after another, of one process: one file for each would be millions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"contents-{os.getpid()}.pack"
        self._file: BinaryIO | None = None
        self._seen: dict[tuple[Kind, str], Kept] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder,)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, data: bytes, kind: Kind) -> Kept:
        """Append a content, unless it was among the last ones."""
        digest = media.digest(data)
        if (before := self._seen.get((kind, digest))) is not None:
            return before
        if self._file is None:
            # Without a buffer: what is committed to the spool has been written.
            self._file = self._path.open("ab", buffering=0)
        kept = Kept(
            kind=kind, digest=digest, file=str(self._path), offset=self._file.tell(), length=len(data)
        )
        # On a full disk, the first part of the data is written.
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._seen[kind, digest] = kept
        if len(self._seen) > RECENT:
            del self._seen[next(iter(self._seen))]
        return kept
