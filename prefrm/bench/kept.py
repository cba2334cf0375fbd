"""What an interrupted benchmark has done already: data that are built, and results with what they are of.

FOLDER/asked.json   what the work in this folder is of: a result of anything else is not taken for it
FOLDER/row.json     the result
FOLDER/seconds.txt  CPU seconds of the work, of all processes that did a part of it
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_recipes.registry import get_recipe
from prefrm.errors import DatasetError
from prefrm.files import write_json, write_whole
from prefrm.records import DatasetInfo, read_info

__all__ = ["build_once", "keep", "kept", "make_room", "seconds_spent", "spending"]

ROW = "row.json"
ASKED = "asked.json"
SECONDS = "seconds.txt"


def build_once(folder: Path, world: str, *, seed: int, **options: Any) -> bool:
    """Build the data of a recipe, unless they are there as they are wanted; returns whether it built."""
    recipe = get_recipe(world)
    wanted = {"seed": seed, **asdict(recipe.read_options(options))}
    if (info := _info(folder)) is not None and info.options == wanted:
        return False
    recipe.build(folder, seed=seed, overwrite=True, **options)
    return True


def kept(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result in the folder, if it is of what is asked."""
    return (_read(folder / ROW) or None) if _read(folder / ASKED) == asked else None


def keep(folder: Path, row: Mapping[str, Any]) -> None:
    """Write the result."""
    write_json(folder / ROW, row)


def make_room(folder: Path, asked: Mapping[str, Any], *, spent: str) -> None:
    """Delete work that cannot be continued: of something else, or ended before its result was written.

    Args:
        folder: of the work.
        asked: what it will be of.
        spent: name of the file or folder that is there once the work cannot be resumed.
    """
    if _read(folder / ASKED) != asked or (folder / spent).exists():
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ASKED, asked)


@contextmanager
def spending(folder: Path) -> Iterator[None]:
    """Add the CPU seconds of the block to those of the folder's work, also where it is interrupted."""
    before, started = seconds_spent(folder), time.process_time()
    try:
        yield
    finally:
        write_whole(folder / SECONDS, str(before + time.process_time() - started))


def seconds_spent(folder: Path) -> float:
    """CPU seconds of the work in the folder, but of processes that were killed."""
    path = folder / SECONDS
    return float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _info(folder: Path) -> DatasetInfo | None:
    with suppress(DatasetError):
        return read_info(folder)
    return None
