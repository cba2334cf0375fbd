"""Images and videos that pages show: kept in a folder by their digests, and sent as thumbnails or whole."""

import io
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from prefrm import media
from prefrm.containers import is_video
from prefrm.errors import MediaError
from prefrm.winmatrix import Candidate

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = [
    "CACHING",
    "MediaStore",
    "media_router",
    "media_type",
    "media_url",
    "thumbnail_of",
    "thumbnail_url",
]

PATH = "/api/media"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Of the longer side. A tile is half as wide on a screen of two pixels to a point.
THUMBNAIL_PIXELS = 224
# In memory, of some 5 kB each.
MOST_THUMBNAILS = 4096
TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
MP4, WEBM = "video/mp4", "video/webm"
# What a digest names never changes.
CACHING = {"cache-control": "private, max-age=31536000, immutable"}


class MediaStore:
    """Encoded images and videos by the sha256 of their bytes. Safe to use from several threads and processes.

    Args:
        folder: of the files; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.absolute()
        self._thumbnail = lru_cache(MOST_THUMBNAILS)(self._make_thumbnail)

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self._folder

    def add(self, data: bytes) -> str:
        """Keep what `data` encodes, which is not checked; returns its digest."""
        name = media.digest(data)
        if not (path := self._folder / name).exists():
            partial = path.with_name(f".{name}.{os.urandom(4).hex()}")
            partial.write_bytes(data)
            partial.replace(path)
        return name

    def add_all(self, candidates: Iterable[Candidate]) -> list[str]:
        """The digests of candidates, "" for texts and missing ones."""
        return [self.add(one) if isinstance(one, bytes) and one else "" for one in candidates]

    def read(self, digest: str) -> bytes:
        """What `digest` names. Raises `MediaError` if nothing here does."""
        try:
            if _DIGEST.fullmatch(digest):
                return (self._folder / digest).read_bytes()
        except OSError:
            pass
        raise MediaError(f"there is no image or video {digest[:64]!r} here")

    def file(self, digest: str, name: str) -> Path:
        """A file of that content whose name ends as `name` does; raises as `read`."""
        data = self.read(digest)
        path = self._folder / "named" / digest / (re.sub(r"[^\w.-]+", "_", name)[-80:].lstrip(".") or "file")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def thumbnail(self, digest: str) -> bytes:
        """A small picture as WebP; of a video, its first, middle and last frame side by side.

        Raises:
            MediaError: nothing here has that digest, or it cannot be decoded.
        """
        return self._thumbnail(digest)

    def _make_thumbnail(self, digest: str) -> bytes:
        return thumbnail_of(self.read(digest))


def thumbnail_of(data: bytes) -> bytes:
    """A small picture of an encoded image or video, as `MediaStore.thumbnail`. Raises `MediaError`."""
    from prefrm.plots.candidates import picture

    image = picture(data)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=85)
    return buffer.getvalue()


def media_url(digest: str) -> str:
    """Where an image or video is sent from as it is."""
    return f"{PATH}/{digest}"


def thumbnail_url(digest: str) -> str:
    """Where its thumbnail is sent from."""
    return f"{PATH}/{digest}/thumbnail"


def media_router(store: MediaStore) -> "APIRouter":
    """The endpoints of `media_url` and `thumbnail_url`."""
    from fastapi import APIRouter, Response

    router = APIRouter(prefix=PATH)

    def whole(digest: str) -> Response:
        try:
            data = store.read(digest)
        except MediaError as error:
            return Response(str(error), 404)
        return Response(data, media_type=media_type(data), headers=CACHING)

    def thumbnail(digest: str) -> Response:
        try:
            return Response(store.thumbnail(digest), media_type="image/webp", headers=CACHING)
        except MediaError as error:
            return Response(str(error), 404)

    router.add_api_route("/{digest}", whole)
    router.add_api_route("/{digest}/thumbnail", thumbnail)
    return router


def media_type(data: bytes) -> str:
    """The content type of an encoded image or video that a browser shows; of others, one that it saves."""
    if is_video(data):
        return WEBM if data.startswith(b"\x1aE\xdf\xa3") else MP4
    kinds = (kind for start, kind in TYPES.items() if data.startswith(start))
    # A browser must not take anything else for a page.
    return next(kinds, "application/octet-stream")
