"""`dataset.json`: where a dataset folder came from."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefrm.errors import DatasetError
from prefrm.files import write_json

__all__ = ["DatasetInfo", "SplitCounts", "read_info", "write_info"]

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCounts:
    """Number of groups and comparisons of a split, and of the judgements that they were made from.

    Attributes:
        groups: preference groups.
        candidates: images, videos or texts in them; one of two groups is counted twice.
        strict: comparisons of which one side is preferred.
        ties: comparisons with p = 0.5.
        contradictory: comparisons on which judgements disagree about the preferred side.
        left_out: judgements that could not be used, by reason.
        first_wins: share of the strict judgements in which the candidate that stands first in the source's
            row is preferred; None where the source has no pairs.
        drawn: whether the split was drawn, by the hash of the prompt, from what the source calls train or has
            no name for; it is not the split that others report on then.
        complete: whether every judgement of the source's split is in it that could be: False if one was left
            out for a broken image or video, identical candidates or an invalid row, or because another split
            or dataset has its prompt, an image or a video.
    """

    groups: int
    candidates: int
    strict: int
    ties: int
    contradictory: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    first_wins: float | None = None
    drawn: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Where a dataset folder came from.

    Attributes:
        recipe: its name.
        options: of the recipe.
        fingerprints: of each split.
        splits: counts of each split.
        licence: of the source, as its publisher states it; empty if unknown.
        source: address of the source; empty if the recipe draws its data or reads a person's own.
        apart_from: folder -> fingerprint of each dataset that shares no prompt and no image with this one.
    """

    recipe: str
    options: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    splits: Mapping[str, SplitCounts] = field(default_factory=dict)
    licence: str = ""
    source: str = ""
    apart_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, int]:
        """Judgements of all splits that could not be used, by reason."""
        total: Counter[str] = Counter()
        for counts in self.splits.values():
            total.update(counts.left_out)
        return dict(total)


def write_info(folder: Path | str, info: DatasetInfo) -> None:
    """Write `folder/dataset.json`."""
    write_json(Path(folder) / "dataset.json", {"format_version": FORMAT_VERSION, **asdict(info)})


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
            splits={name: SplitCounts(**counts) for name, counts in raw.get("splits", {}).items()},
            licence=raw.get("licence", ""),
            source=raw.get("source", ""),
            apart_from=raw.get("apart_from", {}),
        )
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} is not a dataset: it has no {path.name}; build it first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is absent or malformed ({error}); build the dataset again") from error
