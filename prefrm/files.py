"""Files and folders that are whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["write_folder_whole", "write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8; a reader finds the old file or the new one, and never a part."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def write_folder_whole(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place if the block succeeds and is gone if it does not.

    Raises:
        ConfigError: there can be no such folder, as a parent of `target` is a file or may not be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {target} cannot be made ({error.strerror}); name one in a folder that you may write"
        ) from error
    try:
        yield partial
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, target: Path) -> None:
    # A folder cannot replace a folder in one step: the old one steps aside first.
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
