"""Images through the vision tower, each distinct one once, whatever group or call it comes in."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from prefrm.engine.cache import EncodedImage, FeatureCache
from prefrm.engine.held import Held
from prefrm.engine.patches import patches_as_products
from prefrm.errors import MediaError
from prefrm.judge import ImageInput, Judge
from prefrm.media import ImageLimits, decode

__all__ = ["Encoder"]

NO_PIXELS = torch.empty(0)
IMAGES_AT_ONCE = 8
"""On an accelerator, which a single image does not keep busy; a CPU is."""


class Encoder:
    """Decodes, prepares and encodes images.

    Args:
        judge: whose vision tower it is.
        cache: of what was encoded before.
        at_once: how many images of one shape make a pass; None as `IMAGES_AT_ONCE` says.
        limits: what an encoded image may be.
        before_each: called before every pass.
    """

    def __init__(
        self,
        judge: Judge,
        cache: FeatureCache,
        at_once: int | None,
        limits: ImageLimits,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_each = before_each
        self._judge = judge
        self._cache = cache
        self._at_once = at_once or (1 if judge.device.type == "cpu" else IMAGES_AT_ONCE)
        self._limits = limits
        self._tower = judge.model.get_submodule(judge.family.vision_tower)

    def __call__(
        self, images: Mapping[str, bytes], held: Held[EncodedImage]
    ) -> tuple[dict[str, EncodedImage], dict[str, str]]:
        """The images that can be read, in order, and why each of the others cannot; by their digests."""
        found: dict[str, EncodedImage] = {}
        reasons: dict[str, str] = {}
        waiting: dict[torch.Size, dict[str, ImageInput]] = {}
        for key, data in images.items():
            if (encoded := held.get(key) or self._cache.get(key)) is not None:
                found[key] = encoded
                continue
            try:
                image = self._judge.processor.prepare_image(decode(data, self._limits))
            except MediaError as error:
                reasons[key] = str(error)
                continue
            alike = waiting.setdefault(image.pixels.shape, {})
            alike[key] = image
            if len(alike) == self._at_once:
                found |= self._encode(waiting.pop(image.pixels.shape))
        for alike in waiting.values():
            found |= self._encode(alike)
        return {key: found[key] for key in images if key in found}, reasons

    def _encode(self, images: Mapping[str, ImageInput]) -> dict[str, EncodedImage]:
        """A pass, always of as many images: so what is said of one depends on no other.

        Where there are fewer the last one is repeated.
        """
        self._before_each()
        shown = list(images.values())
        shown += [replace(shown[-1]) for _ in range(self._at_once - len(shown))]
        with patches_as_products(self._tower):
            features = self._judge.encode(shown)
        found = {
            # A part of a larger tensor would keep all of it alive, and the pixels are not needed any more.
            key: EncodedImage(image=replace(image, pixels=NO_PIXELS), features=features[image].clone())
            for key, image in images.items()
        }
        for key, encoded in found.items():
            self._cache.put(key, encoded)
        return found
