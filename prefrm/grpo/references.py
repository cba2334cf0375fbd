"""What a lone candidate is compared with, in evaluation: of a reference policy, or real."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefrm import media
from prefrm.errors import DatasetError

__all__ = ["Reference", "reference_folder"]

Reference = Callable[[str, Any], Any]
"""Takes a prompt and what its trainer knows beside it; gives an image as `encode_image` takes it,
a text where candidates are texts, or None."""

INDEX = "metadata.jsonl"


def reference_folder(folder: str | Path) -> Reference:
    """The images of a folder by their prompts; None for a prompt that the folder has no image of.

    Args:
        folder: an image folder as `datasets` reads it: images, and `metadata.jsonl` with the entries
            `file_name` and `prompt` in each line.

    Raises:
        DatasetError: the index is absent, a line of it lacks an entry, or names no file.
    """
    index = Path(folder) / INDEX
    files: dict[str, Path] = {}
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"reference images need {index}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            path = Path(folder) / row["file_name"]
            files[row["prompt"]] = path
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                f"line {number} of {index} must be JSON with file_name and prompt; received {line[:60]!r}"
            ) from error
        if not path.is_file():
            raise DatasetError(f"line {number} of {index} names {path}, which is not a file")

    def image(prompt: str, about: Any) -> bytes | None:
        return media.read(files[prompt]) if prompt in files else None

    return image
