"""Files and folders that are whole or not there, and whether a path can be written at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["require_writable_file", "require_writable_folder", "write_folder_whole", "write_whole"]


def require_writable_file(path: Path, name: str) -> None:
    """Check that a file can be written, so that no work is done whose result is lost; leaves nothing behind.

    Args:
        path: in a folder that exists.
        name: of the option or the setting that holds the path, for the message.

    Raises:
        ConfigError: `path` is a folder, its folder does not exist, or the system refuses the file.
    """
    with _refused(path, name):
        if path.is_dir():
            raise ConfigError(f"{name} {path} is a folder; name a file")
        if not path.parent.is_dir():
            raise ConfigError(f"{name} {path}: {path.parent} is not a folder; make it first")
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()


def require_writable_folder(path: Path, name: str) -> None:
    """Check that files can be written into a folder, which need not exist yet; leaves nothing behind.

    Args and errors are those of `require_writable_file`.
    """
    with _refused(path, name):
        existing = next(place for place in (path, *path.parents) if place.exists())
        tempfile.TemporaryFile(dir=existing).close()


@contextmanager
def _refused(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{name} {path} cannot be written: {error.strerror or error}; choose another place"
        ) from error


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
