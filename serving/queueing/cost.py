"""What it costs to score a group, estimated before anything of it is decoded."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from prefrm.winmatrix import Group, Scorer

__all__ = ["Costed", "cost_of"]


@runtime_checkable
class Costed(Protocol):
    """A scorer that can say what a group costs, such as `prefrm.engine.Engine`."""

    def cost(self, group: Group) -> int:
        """Tokens, at least 1; cheap, for it is asked on the event loop."""
        ...


def cost_of(scorer: Scorer) -> Callable[[Group], int]:
    """The scorer's own estimate, or the number of ordered pairs for a scorer that has none."""
    if isinstance(scorer, Costed):
        return scorer.cost
    return lambda group: group.size * (group.size - 1)
