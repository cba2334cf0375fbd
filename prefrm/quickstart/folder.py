"""The folder of a run: what an earlier quickstart left there is replaced, and nothing else is touched."""

import os
import shutil
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["MARKER", "make_room"]

MARKER = ".prefrm-quickstart"
# What a run writes beside its marker. The numbers are written last and go first, so that they are only
# ever found beside the rest.
WRITTEN = ("report.json", "report.md", "pictures", "policy", "server", "judge", "data")


def make_room(out: Path) -> None:
    """Mark `out` as a quickstart's, and remove from it what an earlier one wrote, finished or not.

    Raises:
        ConfigError: `out` is no folder, or a quickstart never marked it and it holds something.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"{out} is no folder; choose another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ConfigError(f"{out} holds something that no quickstart wrote; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    # Before anything else: a run that is killed at any moment leaves a folder that the next one accepts.
    (out / MARKER).touch()
    for name in WRITTEN:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
