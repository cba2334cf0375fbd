"""Checkpoints that installed packages ship, by names that mean the same on every machine.

A package names the folder of one under the entry point group `prefrm.checkpoints`.
"""

from importlib.metadata import entry_points
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["SHIPPED", "find_shipped"]

SHIPPED = "shipped:"
"""Prefix of such names, which no folder's and no hub id's name has: `shipped:shapes-captioner`."""
GROUP = "prefrm.checkpoints"


def find_shipped(name: str) -> Path:
    """The folder of the checkpoint `shipped:NAME`. Raises `ConfigError` that lists the names there are."""
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if (entry := installed.get(name.removeprefix(SHIPPED))) is None:
        names = ", ".join(SHIPPED + known for known in sorted(installed))
        raise ConfigError(
            f"{name!r} is not a checkpoint that an installed package ships; there are: {names or 'none'}"
        )
    return Path(entry.load())
