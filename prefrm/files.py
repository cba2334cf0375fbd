"""Files and folders that are whole or not there, whether a path can be written, and bounded reading."""

import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError

__all__ = [
    "hash_file",
    "parse_json",
    "read_regular",
    "require_writable_file",
    "require_writable_folder",
    "write_file_whole",
    "write_folder_whole",
    "write_json",
    "write_whole",
]

# Lists and objects inside each other, in JSON that is read as plain data.
JSON_DEPTH = 32


def hash_file(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file, which a symbolic link may lead to.

    Neither a FIFO nor a device is waited for or read.

    Args:
        path: of the file.
        most: how many bytes it may have.

    Raises:
        ConfigError: it is not a regular file, or has more than `most` bytes.
        OSError: it cannot be opened or read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError(f"{path} is not a regular file")
        # The size that the system states may be 0, as in /proc, or grow while the file is read.
        content = file.read(most + 1)
    if len(content) > most:
        raise ConfigError(f"{path} has more than {most} bytes")
    return content


def _open_at_once(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO waits for a writer. Windows has neither.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(content: bytes) -> Any:
    """Plain data from untrusted JSON in UTF-8.

    Raises:
        ConfigError: it is malformed, holds NaN, an infinity or a key twice in one object, or is nested more
            than `JSON_DEPTH` deep.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_constant=_finite,
            parse_float=_finite,
            object_pairs_hook=_without_duplicates,
        )
    except RecursionError as error:
        raise ConfigError(f"its JSON is nested more than {JSON_DEPTH} deep") from error
    except ValueError as error:
        raise ConfigError(f"it is not valid JSON ({error})") from error
    level = [value]
    for _ in range(JSON_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise ConfigError(f"its JSON is nested more than {JSON_DEPTH} deep")
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} is given twice in one object")
        found[key] = value
    return found


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
            raise ConfigError(f"{name} {path}: {path.parent} is not a folder; create it first")
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
            f"{name} {path} cannot be written: {error.strerror or error}; choose another path"
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8; a reader finds the old file or the new one, and never a part."""
    with write_file_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, as `write_whole`. Raises `ValueError` if a number is not finite."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def write_file_whole(target: Path) -> Iterator[Path]:
    """A file beside `target` that takes its place if the block succeeds and is gone if it does not."""
    partial = target.with_suffix(".partial")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        if error.filename != str(partial):
            raise
        # The original message names the temporary file.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with suppress(OSError):
            partial.unlink()


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
            f"the folder {target} cannot be created ({error.strerror}); choose one in a writable folder"
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
