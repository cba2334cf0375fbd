"""Values that several groups of a call need, each freed after its last expected use."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["RefCounted"]

V = TypeVar("V")


class RefCounted(Generic[V]):
    """Values by name, each freed after its last expected use.

    Args:
        uses: the names, once for each expected use.
    """

    def __init__(self, uses: Iterable[Hashable]) -> None:
        self._left = Counter(uses)
        self._values: dict[Hashable, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: Hashable) -> V | None:
        """The value, if it is kept."""
        return self._values.get(name)

    def use(self, name: Hashable, value: V) -> None:
        """Count one use of a value; keep it if another use is expected, and free it if not."""
        self._left[name] -= 1
        if self._left[name] > 0:
            self._values[name] = value
        else:
            self._values.pop(name, None)

    def skip(self, *names: Hashable) -> None:
        """Count one use of each that does not take place."""
        for name in names:
            self._left[name] -= 1
            if self._left[name] <= 0:
                self._values.pop(name, None)
