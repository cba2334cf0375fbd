"""`dataset.json`: where a dataset folder came from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefrm.errors import DatasetError

__all__ = ["DatasetInfo", "read_info", "write_info"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Where a dataset folder came from.

    Attributes:
        recipe: its name.
        options: of the recipe.
        fingerprints: of each split.
        left_out: how many `images`, `pairs` and `groups` of the source could not be used; empty if none.
    """

    recipe: str
    options: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    left_out: Mapping[str, int] = field(default_factory=dict)


def write_info(folder: Path | str, info: DatasetInfo) -> None:
    """Write `folder/dataset.json`."""
    text = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "recipe": info.recipe,
            "options": dict(info.options),
            "fingerprints": dict(info.fingerprints),
            "left_out": dict(info.left_out),
        },
        indent=2,
    )
    (Path(folder) / "dataset.json").write_text(text + "\n", encoding="utf-8")


def read_info(folder: Path | str) -> DatasetInfo:
    """Read `folder/dataset.json`. Raises `DatasetError` if it is absent, malformed or of another version."""
    path = Path(folder) / "dataset.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is version {raw['format_version']}; this is {FORMAT_VERSION}")
        return DatasetInfo(
            recipe=raw["recipe"],
            options=raw["options"],
            fingerprints=raw["fingerprints"],
            left_out=raw.get("left_out", {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is absent or malformed ({error}); build the dataset again") from error
