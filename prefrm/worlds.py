"""Worlds with an oracle: embedded ones that know how right an image is, whoever made it."""

from importlib.metadata import entry_points
from typing import Protocol

from prefrm.errors import ConfigError

__all__ = ["World", "load_world"]

WORLDS = "prefrm.worlds"


class World(Protocol):
    """A module that an entry point of the group `prefrm.worlds` names."""

    def prompts(self, split: str, n: int, seed: int) -> list[str]:
        """`n` prompts of "train", "validation" or "test", which have none in common."""
        ...

    def oracle(self, prompt: str, image: bytes) -> float:
        """How right an encoded image is, in [0, 1]. Raises `DataError` for a prompt of another world."""
        ...


def load_world(name: str, setting: str) -> World:
    """The world of that name. Raises `ConfigError` if there is none, about the setting that names it."""
    known = {point.name: point for point in entry_points(group=WORLDS)}
    if name not in known:
        raise ConfigError(
            f"{setting} must be one of {', '.join(known) or 'none installed'}; received {name!r}"
        )
    world: World = known[name].load()
    return world
