"""The calls that both servers are asked. Each is a function of a wire, under its own name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.serving.triton.wire import BOTH, Wire

__all__ = ["CALLS", "Call", "add", "on"]

Ask = Callable[[Wire], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call on one wire: what it is named in the table of differences, and how it is made."""

    name: str
    kind: str
    ask: Ask

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"


CALLS: list[Call] = []


def add(name: str, ask: Ask, *kinds: str) -> None:
    """Register a call on these wires, on gRPC and HTTP if none is named."""
    CALLS.extend(Call(name=name, kind=kind, ask=ask) for kind in kinds or BOTH)


def on(*kinds: str) -> Callable[[Ask], Ask]:
    """Register a function under its name; see `add`."""

    def register(ask: Ask) -> Ask:
        add(ask.__name__, ask, *kinds)
        return ask

    return register
