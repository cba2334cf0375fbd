"""Images through the vision tower, each distinct one once, whatever group or call it comes in.

A pass of the tower is packed: it has images of any shapes, cut into patches or equal tiles, which attend to
others of their own image alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch

from prefrm.engine.cache import EncodedImage, FeatureCache
from prefrm.engine.patches import patches_as_products
from prefrm.engine.plan import runs_within
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError
from prefrm.judge import ImageInput, Judge
from prefrm.media import ImageLimits, decode

__all__ = ["Encoder"]

NO_PIXELS = torch.empty(0)
PATCHES = 8192
"""Of a pass on an accelerator, which a single image does not keep busy: 8 images of 448 x 448 pixels."""


class Encoder:
    """Decodes, prepares and encodes images.

    Args:
        judge: whose vision tower it is.
        cache: of image features.
        patches: of a pass, or one image if that has more; None is one image on a CPU and `PATCHES` elsewhere.
        fixed: whether passes with fewer patches are filled up, so that all have one size.
        limits: what an encoded image may be.
        before_each: called before every pass.
    """

    def __init__(
        self,
        judge: Judge,
        cache: FeatureCache,
        patches: int | None,
        fixed: bool,
        limits: ImageLimits,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_each = before_each
        self._judge = judge
        self._cache = cache
        patches = patches or (1 if judge.device.type == "cpu" else PATCHES)
        # In the unit of an image's pixels, which is a tile in some families.
        self._units = max(1, patches // judge.family.unit_patches(judge.model.config))
        self._fixed = fixed
        self._limits = limits
        self._tower = judge.model.get_submodule(judge.family.vision_tower)

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

        def prepared() -> Iterator[tuple[tuple[str, ImageInput], int]]:
            for key, data in images.items():
                if (known := encoded.get(key) or self._cache.get(key)) is not None:
                    found[key] = known
                    continue
                try:
                    image = self._judge.processor.prepare_image(decode(data, self._limits))
                except MediaError as error:
                    reasons[key] = str(error)
                else:
                    yield (key, image), image.units

        for run in runs_within(prepared(), self._units):
            found |= self._encode(dict(run))
        return {key: found[key] for key in images if key in found}, reasons

    def _encode(self, images: Mapping[str, ImageInput]) -> dict[str, EncodedImage]:
        """One pass."""
        self._before_each()
        units = sum(image.units for image in images.values())
        fill = max(0, self._units - units) if self._fixed else 0
        with patches_as_products(self._tower):
            features = self._judge.encode(list(images.values()), fill=fill)
        found = {
            # A part of a larger tensor would keep all of it alive, and the pixels are not needed any more.
            key: EncodedImage(image=replace(image, pixels=NO_PIXELS), features=features[image].clone())
            for key, image in images.items()
        }
        for key, encoded in found.items():
            self._cache.put(key, encoded)
        return found
