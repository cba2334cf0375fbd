"""Folders of an unfinished run, each written whole or not at all; the trainers fill them.

checkpoints/step-00000100/manifest.json   the sha256 of every other file in the folder

A checkpoint is filled under another name, forced to the disk and then renamed, so that a run may be
killed at any moment. One whose files are not those of its manifest counts as absent.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import hash_file, write_folder_whole, write_json

__all__ = ["Checkpoints", "step_of"]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PREFIX = "step-"


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: need not exist.
        keep: at least 1; how many of the newest stay.
        every: number of steps from one to the next.
    """

    def __init__(self, folder: Path, *, keep: int, every: int = 100) -> None:
        self.folder = folder
        self.every = every
        self._keep = keep

    def found(self) -> list[Path]:
        """Every checkpoint, whole or not, the newest first."""
        return sorted(self.folder.glob(f"{PREFIX}*"), key=step_of, reverse=True)

    def require_none(self) -> None:
        """Raise `ConfigError` if there are any, of a run that would be lost."""
        if unfinished := self.found():
            raise ConfigError(
                f"{self.folder} holds the checkpoints of an unfinished run, such as {unfinished[0].name}; "
                "continue it with --resume, or delete the folder to start over"
            )

    def newest(self) -> Path | None:
        """The newest whole checkpoint; logs a warning for each broken one that is newer."""
        for path in self.found():
            if (damage := _damage(path)) is None:
                return path
            logger.warning("%s is passed over: %s", path, damage)
        return None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder to fill, which is the newest checkpoint once the block ends; older ones are removed."""
        with write_folder_whole(self.folder / f"{PREFIX}{step:08d}") as partial:
            yield partial
            files = {path.name: hash_file(path) for path in sorted(partial.iterdir())}
            write_json(partial / MANIFEST, {"files": files})
            for path in (*partial.iterdir(), partial):
                _force_to_disk(path)
        _force_to_disk(self.folder)
        for old in self.found()[self._keep :]:
            shutil.rmtree(old)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, and what was never finished."""
        later = [path for path in self.found() if step_of(path) > step]
        for path in (*later, *self.folder.glob(f".{PREFIX}*")):
            shutil.rmtree(path)

    def remove(self) -> None:
        """Remove them all at once: a kill leaves nothing that could be taken for a run to continue."""
        going = self.folder.with_name(f".{self.folder.name}.removed")
        shutil.rmtree(going, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The step after which it was written; -1 if its name has none."""
    number = checkpoint.name.removeprefix(PREFIX)
    return int(number) if number.isdecimal() else -1


def _damage(checkpoint: Path) -> str | None:
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        altered = [name for name, expected in files.items() if hash_file(checkpoint / name) != expected]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it is incomplete ({error})"
    return f"{altered[0]} was altered" if altered else None


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
