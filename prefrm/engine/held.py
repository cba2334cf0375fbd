"""What several groups of a call have in common, kept from the first that needs it to the last."""

from collections import Counter
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["Held"]

V = TypeVar("V")


class Held(Generic[V]):
    """Values by name, each kept for as long as it will be needed again.

    Args:
        uses: the names, once for each use to come.
    """

    def __init__(self, uses: Iterable[str]) -> None:
        self._left = Counter(uses)
        self._values: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> V | None:
        """The value, if it is kept."""
        return self._values.get(name)

    def use(self, name: str, value: V) -> None:
        """Count one use of a value; keep it if there is another to come, and let it go if not."""
        self._left[name] -= 1
        if self._left[name] > 0:
            self._values[name] = value
        else:
            self._values.pop(name, None)
