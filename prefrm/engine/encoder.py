"""Images and videos through the vision tower, each distinct one once, whatever group or call it comes in.

A pass of the tower is packed: it has images of any shapes, cut into patches or equal tiles, which attend to
others of their own image alone. Texts have no images, and take no pass.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

import torch

from prefrm.chunks import runs_within
from prefrm.containers import is_video
from prefrm.engine.ahead import map_ahead
from prefrm.engine.cache import EncodedContent, FeatureCache
from prefrm.engine.patches import patches_as_products
from prefrm.engine.plan import Key
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError, RecordError
from prefrm.judge import Content, ContentReader, Decoded, ImageInput, Judge
from prefrm.media import ImageLimits, digest

__all__ = ["Encoder", "ImageTower", "JudgeTower", "PreparedContent"]

NO_PIXELS = torch.empty(0)
THREADS = 4
"""Each holds an image in its full size while it decodes it."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PreparedContent:
    """An image or a video that was decoded ahead.

    Attributes:
        content: its features if it was encoded before; what the tower prepares; or the reason why it cannot
            be read.
    """

    content: EncodedContent | Decoded | str


class ImageTower(Protocol):
    """An image encoder, and the preparation of contents for it.

    Attributes:
        unit_patches: how many patches one of an image's `units` is.
    """

    unit_patches: int

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    def decode(self, data: bytes | str, kind: str) -> Decoded:
        """What `prepare` makes the content of. Raises `MediaError`, `RecordError`."""
        ...

    def prepare(self, decoded: Decoded) -> Content:
        """The content. Raises `MediaError`."""
        ...

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """Features of images in one pass, with `fill` units of padding."""
        ...


class JudgeTower(ContentReader):
    """The vision tower of a judge on a backbone, as an `ImageTower`."""

    def __init__(self, judge: Judge, limits: ImageLimits) -> None:
        super().__init__(judge.processor, limits)
        self._judge = judge
        self._tower = judge.model.get_submodule(judge.family.vision_tower)
        self.unit_patches = judge.family.unit_patches(judge.model.config)

    @property
    def device(self) -> torch.device:
        """Of the judge."""
        return self._judge.device

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """As in the protocol."""
        with patches_as_products(self._tower):
            return self._judge.encode(images, fill=fill)


class Encoder:
    """Decodes, prepares and encodes contents.

    Args:
        tower: the image encoder.
        cache: of image features.
        patches: of a pass, or one image, or one grid of frames, if that has more.
        fixed: whether passes with fewer patches are filled up, so that all have one size.
        before_each: called before every pass.
        threads: that decode and resize contents of later passes while one runs; None is up to `THREADS` on an
            accelerator, and 0 on a CPU.
    """

    def __init__(
        self,
        tower: ImageTower,
        cache: FeatureCache,
        patches: int,
        fixed: bool,
        before_each: Callable[[], None] = lambda: None,
        threads: int | None = None,
    ) -> None:
        self._before_each = before_each
        self._tower = tower
        self._cache = cache
        # In the unit of an image's pixels, which is a tile in some families.
        self._units = max(1, patches // tower.unit_patches)
        self._fixed = fixed
        self._threads = _decoding_threads(tower.device) if threads is None else threads
        # Each for as long as the caller of `prepare` keeps it.
        self._prepared: WeakValueDictionary[Key, PreparedContent] = WeakValueDictionary()

    def prepare(self, data: bytes) -> PreparedContent:
        """Decode an image or a video ahead of calls, in any thread; they use the result while it is kept."""
        key = Key("video" if is_video(data) else "image", digest(data))
        if (found := self._prepared.get(key)) is None:
            found = PreparedContent(self._cache.peek(key) or self._decoded(data, key.kind))
            self._prepared[key] = found
        return found

    def _decoded(self, data: bytes | str, kind: str) -> Decoded | str:
        try:
            return self._tower.decode(data, kind)
        except (MediaError, RecordError) as error:
            return str(error)

    def __call__(
        self, contents: Mapping[Key, bytes | str], encoded: RefCounted[EncodedContent]
    ) -> tuple[dict[Key, EncodedContent], dict[Key, str]]:
        """The contents that can be read, in order, and why each of the others cannot; by their keys.

        Args:
            contents: encoded images, encoded videos and texts.
            encoded: those that are known, besides those in the cache.
        """
        found: dict[Key, EncodedContent] = {}
        reasons: dict[Key, str] = {}
        waiting: dict[Key, Content] = {}
        features: dict[ImageInput, torch.Tensor] = {}

        def unknown() -> Iterator[tuple[Key, bytes | str]]:
            for key, data in contents.items():
                known = encoded.get(key)
                # A text has no features to keep.
                if known is None and isinstance(data, bytes):
                    known = self._cache.get(key)
                if known is None:
                    yield key, data
                else:
                    found[key] = known

        def images() -> Generator[tuple[ImageInput, int]]:
            for key, content in map_ahead(self._content, unknown(), self._threads):
                if isinstance(content, EncodedContent):
                    found[key] = content
                elif isinstance(content, str):
                    reasons[key] = content
                else:
                    waiting[key] = content
                    yield from ((image, image.units) for image in _images(content))

        def finish() -> None:
            ready = [key for key, content in waiting.items() if features.keys() >= set(_images(content))]
            for key in ready:
                found[key] = _encoded(waiting.pop(key), features)
                self._cache.put(key, found[key])

        with closing(images()) as shown:
            for run in runs_within(shown, self._units):
                features |= self._encode(run)
                finish()
        finish()
        return {key: found[key] for key in contents if key in found}, reasons

    def _content(self, item: tuple[Key, bytes | str]) -> tuple[Key, EncodedContent | Content | str]:
        """The key of a content, and what is to be encoded, its features, or why it cannot be read."""
        key, data = item
        ahead = self._prepared.get(key)
        content = self._decoded(data, key.kind) if ahead is None else ahead.content
        if isinstance(content, EncodedContent | str):
            return key, content
        try:
            return key, self._tower.prepare(content)
        except MediaError as error:
            return key, str(error)

    def _encode(self, images: Sequence[ImageInput]) -> dict[ImageInput, torch.Tensor]:
        """One pass."""
        self._before_each()
        fill = max(0, self._units - sum(image.units for image in images)) if self._fixed else 0
        features = self._tower.encode(images, fill)
        # A part of a larger tensor would keep all of it alive.
        return {image: features[image].clone() for image in images}


def _images(content: Content) -> list[ImageInput]:
    return [part for part in content if isinstance(part, ImageInput)]


def _encoded(content: Content, features: dict[ImageInput, torch.Tensor]) -> EncodedContent:
    """The content with its images' features, which are taken out of `features`, and without their pixels."""
    small = {image: replace(image, pixels=NO_PIXELS) for image in _images(content)}
    return EncodedContent(
        content=tuple(small[part] if isinstance(part, ImageInput) else part for part in content),
        features={own: features.pop(image) for image, own in small.items()},
    )


def _decoding_threads(device: torch.device) -> int:
    """How many threads decode ahead: none on a CPU, whose cores the vision tower keeps busy."""
    return 0 if device.type == "cpu" else max(1, min(THREADS, (os.cpu_count() or 1) - 1))
