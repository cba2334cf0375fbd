"""Images through the vision tower, each distinct one once, whatever group or call it comes in.

A pass of the tower is packed: it has images of any shapes, cut into patches or equal tiles, which attend to
others of their own image alone.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from PIL import Image

from prefrm.engine.ahead import map_ahead
from prefrm.engine.cache import EncodedImage, FeatureCache
from prefrm.engine.patches import patches_as_products
from prefrm.engine.plan import runs_within
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError
from prefrm.judge import ImageInput, Judge
from prefrm.media import ImageLimits, decode, digest

__all__ = ["Encoder", "ImageTower", "JudgeTower", "PreparedImage"]

NO_PIXELS = torch.empty(0)
THREADS = 4
"""Each holds an image in its full size while it decodes it."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PreparedImage:
    """An image that was decoded ahead.

    Attributes:
        content: its features if it was encoded before; the image in its final size; what the vision tower
            reads, of families that show it in several sizes; or the reason why it cannot be read.
    """

    content: EncodedImage | Image.Image | ImageInput | str


class ImageTower(Protocol):
    """An image encoder, and the preparation of images for it.

    Attributes:
        unit_patches: how many patches one of an image's `units` is.
    """

    unit_patches: int

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """What it reads of an image. Raises `MediaError`."""
        ...

    def shrink(self, image: Image.Image) -> Image.Image | None:
        """The image in its final size, if that takes less memory than what is read."""
        ...

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """Features of images in one pass, with `fill` units of padding."""
        ...


class JudgeTower:
    """The vision tower of a judge on a backbone, as an `ImageTower`."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._tower = judge.model.get_submodule(judge.family.vision_tower)
        self.unit_patches = judge.family.unit_patches(judge.model.config)

    @property
    def device(self) -> torch.device:
        """Of the judge."""
        return self._judge.device

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """As `JudgeProcessor.prepare_image`."""
        return self._judge.processor.prepare_image(image)

    def shrink(self, image: Image.Image) -> Image.Image | None:
        """As `JudgeProcessor.shrink`."""
        return self._judge.processor.shrink(image)

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """As in the protocol."""
        with patches_as_products(self._tower):
            return self._judge.encode(images, fill=fill)


class Encoder:
    """Decodes, prepares and encodes images.

    Args:
        tower: the image encoder.
        cache: of image features.
        patches: of a pass, or one image if that has more.
        fixed: whether passes with fewer patches are filled up, so that all have one size.
        limits: what an encoded image may be.
        before_each: called before every pass.
        threads: that decode and resize images of later passes while one runs; None is up to `THREADS` on an
            accelerator, and 0 on a CPU.
    """

    def __init__(
        self,
        tower: ImageTower,
        cache: FeatureCache,
        patches: int,
        fixed: bool,
        limits: ImageLimits,
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
        self._limits = limits
        # Each for as long as the caller of `prepare` keeps it.
        self._prepared: WeakValueDictionary[str, PreparedImage] = WeakValueDictionary()

    def prepare(self, data: bytes) -> PreparedImage:
        """Decode an image ahead of a call, in any thread; calls use it for as long as the result is kept."""
        key = digest(data)
        if (found := self._prepared.get(key)) is None:
            found = PreparedImage(self._cache.peek(key) or self._decoded(data))
            self._prepared[key] = found
        return found

    def _decoded(self, data: bytes) -> Image.Image | ImageInput | str:
        try:
            image = decode(data, self._limits)
            return self._tower.shrink(image) or self._tower.prepare_image(image)
        except MediaError as error:
            return str(error)

    def __call__(
        self, images: Mapping[str, bytes], encoded: RefCounted[EncodedImage]
    ) -> tuple[dict[str, EncodedImage], dict[str, str]]:
        """The images that can be read, in order, and why each of the others cannot; by their digests.

        Args:
            images: encoded images.
            encoded: images that are known, besides those in the cache.
        """
        found: dict[str, EncodedImage] = {}
        reasons: dict[str, str] = {}

        def unknown() -> Iterator[tuple[str, bytes]]:
            for key, data in images.items():
                if (known := encoded.get(key) or self._cache.get(key)) is not None:
                    found[key] = known
                else:
                    yield key, data

        def prepared() -> Generator[tuple[tuple[str, ImageInput], int]]:
            for key, content in map_ahead(self._content, unknown(), self._threads):
                if isinstance(content, ImageInput):
                    yield (key, content), content.units
                elif isinstance(content, EncodedImage):
                    found[key] = content
                else:
                    reasons[key] = content

        with closing(prepared()) as ready:
            for run in runs_within(ready, self._units):
                found |= self._encode(dict(run))
        return {key: found[key] for key in images if key in found}, reasons

    def _content(self, image: tuple[str, bytes]) -> tuple[str, EncodedImage | ImageInput | str]:
        """The key of an image, and what the vision tower reads, its features, or why it cannot be read."""
        key, data = image
        ahead = self._prepared.get(key)
        content = self._decoded(data) if ahead is None else ahead.content
        if isinstance(content, Image.Image):
            content = self._tower.prepare_image(content)
        return key, content

    def _encode(self, images: Mapping[str, ImageInput]) -> dict[str, EncodedImage]:
        """One pass."""
        self._before_each()
        units = sum(image.units for image in images.values())
        fill = max(0, self._units - units) if self._fixed else 0
        features = self._tower.encode(list(images.values()), fill)
        found = {
            # A part of a larger tensor would keep all of it alive, and the pixels are not needed any more.
            key: EncodedImage(image=replace(image, pixels=NO_PIXELS), features=features[image].clone())
            for key, image in images.items()
        }
        for key, encoded in found.items():
            self._cache.put(key, encoded)
        return found


def _decoding_threads(device: torch.device) -> int:
    """How many threads decode ahead: none on a CPU, whose cores the vision tower keeps busy."""
    return 0 if device.type == "cpu" else max(1, min(THREADS, (os.cpu_count() or 1) - 1))
