"""An LRU cache of the features of images and videos, by their keys, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch

from prefrm.errors import ConfigError
from prefrm.judge import Content, ImageInput

__all__ = ["DEFAULT_CACHE_BYTES", "EncodedContent", "FeatureCache"]

DEFAULT_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedContent:
    """A candidate or a context image as the language model takes it.

    Attributes:
        content: its tokens and images, in order; the pixels are gone.
        features: [V, T, D] of each of these images, V depths, T tokens, D hidden.
    """

    content: Content
    features: Mapping[ImageInput, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Size of the features."""
        return sum(one.nbytes for one in self.features.values())


class FeatureCache:
    """Encoded images and videos by key; the least recently used goes first.

    Args:
        capacity: bytes of features, at least 0; 0 keeps nothing.

    Attributes:
        hits: how often one that was requested was there.
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
        self._contents: OrderedDict[Hashable, EncodedContent] = OrderedDict()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        return self._nbytes

    def peek(self, key: Hashable) -> EncodedContent | None:
        """The content of that key, or None, without counting it as used. Any thread may call it."""
        return self._contents.get(key)

    def get(self, key: Hashable) -> EncodedContent | None:
        """The content of that key, or None."""
        if (found := self._contents.get(key)) is None:
            self.misses += 1
            return None
        self.hits += 1
        self._contents.move_to_end(key)
        return found

    def put(self, key: Hashable, content: EncodedContent) -> None:
        """Keep a content that was not there, unless it is larger than the whole cache, or has no features."""
        if not 0 < content.nbytes <= self.capacity or key in self._contents:
            return
        self._contents[key] = content
        self._nbytes += content.nbytes
        while self._nbytes > self.capacity:
            _, gone = self._contents.popitem(last=False)
            self._nbytes -= gone.nbytes
