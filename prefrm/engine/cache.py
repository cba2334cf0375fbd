"""An LRU cache of image features by the digests of images, bounded in bytes."""

from collections import OrderedDict
from dataclasses import dataclass

import torch

from prefrm.errors import ConfigError
from prefrm.judge import ImageInput

__all__ = ["DEFAULT_CACHE_BYTES", "EncodedImage", "FeatureCache"]

DEFAULT_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedImage:
    """An image as the language model takes it.

    Attributes:
        image: its tokens and its place in a sequence; the pixels are gone.
        features: [V, T, D], V depths, T tokens, D hidden.
    """

    image: ImageInput
    features: torch.Tensor

    @property
    def nbytes(self) -> int:
        """What the features take."""
        return self.features.nbytes


class FeatureCache:
    """Encoded images by digest; the least recently used goes first.

    Args:
        capacity: bytes of features, at least 0; 0 keeps nothing.

    Attributes:
        hits: how often an image that was asked for was there.
        misses: how often it was not.

    Raises:
        ConfigError: the capacity is negative.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ConfigError(f"a cache holds 0 bytes or more; received {capacity}")
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        return self._nbytes

    def peek(self, digest: str) -> EncodedImage | None:
        """The image of that digest, or None, without counting it as used. Any thread may call it."""
        return self._images.get(digest)

    def get(self, digest: str) -> EncodedImage | None:
        """The image of that digest, or None."""
        if (found := self._images.get(digest)) is None:
            self.misses += 1
            return None
        self.hits += 1
        self._images.move_to_end(digest)
        return found

    def put(self, digest: str, image: EncodedImage) -> None:
        """Keep an image that was not there; an image larger than the whole cache is not kept."""
        if image.nbytes > self.capacity or digest in self._images:
            return
        self._images[digest] = image
        self._nbytes += image.nbytes
        while self._nbytes > self.capacity:
            _, gone = self._images.popitem(last=False)
            self._nbytes -= gone.nbytes
