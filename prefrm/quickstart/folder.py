"""The folder of a run: what an earlier quickstart left there is replaced, and nothing else is touched."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["MARKER", "make_room"]

MARKER = ".prefrm-quickstart"
# What a run writes beside its marker. The numbers are written last and go first, so that they are only
# ever found beside the rest.
WRITTEN = ("report.json", "report.md", "pictures", "policy", "server", "judge", "data")


@contextmanager
def make_room(out: Path) -> Iterator[None]:
    """Mark `out` as a quickstart's, and remove from it what an earlier one wrote, finished or not.

    While the block runs, no other quickstart may have the folder; a process that dies gives it back.

    Raises:
        ConfigError: `out` is no folder, or another quickstart has it, or a quickstart never marked it and
            it holds something.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"{out} is no folder; choose another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ConfigError(f"{out} holds something that no quickstart wrote; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    # Before anything else: a run that is killed at any moment leaves a folder that the next one accepts.
    with (out / MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another quickstart is writing into {out}; wait for it, or choose another folder with --out"
            ) from error
        _clear(out)
        yield


def _clear(out: Path) -> None:
    for name in WRITTEN:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
