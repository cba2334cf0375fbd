"""A record as a row of plain values, and back; what a row may hold is checked here. Touches no disk."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from prefrm.errors import RecordError
from prefrm.records.record import Comparison, PreferenceGroup
from prefrm.winmatrix import Candidate, Group

__all__ = ["Fingerprint", "fingerprint", "from_row", "group_columns", "group_of_columns", "to_row"]

CANDIDATES = ("images", "videos", "texts")
"""The columns of candidates, by kind; a row fills one of them."""


def to_row(group: PreferenceGroup) -> dict[str, Any]:
    """The record as a row of the parquet file: lists and dictionaries, the tags as JSON."""
    return {
        "id": group.id,
        **group_columns(group.group()),
        "comparisons": [{"i": c.i, "j": c.j, "p": c.p, "weight": c.weight} for c in group.comparisons],
        "quality": None if group.quality is None else list(group.quality),
        "tags": json.dumps(dict(group.tags), sort_keys=True),
        "completions": None if group.completions is None else list(group.completions),
    }


def from_row(row: dict[str, Any]) -> PreferenceGroup:
    """The record of a row of a file. Raises `RecordError`, which names its id, if it is not valid."""
    try:
        for name in ("id", "prompt", "criterion", "tags"):
            _require_text(row[name], name)
        if not isinstance(tags := json.loads(row["tags"]), dict):
            raise ValueError(f"tags must be a JSON object; received {row['tags'][:60]}")
        parts: dict[str, Any] = {
            "candidates": _candidates(row),
            "context": tuple(map(_bytes, row["context"])),
            "criterion": row["criterion"],
            "comparisons": tuple(Comparison(**c) for c in row["comparisons"]),
            "quality": None if row["quality"] is None else tuple(map(float, row["quality"])),
            "tags": tags,
            "completions": None if row["completions"] is None else tuple(row["completions"]),
        }
        for text in parts["completions"] or ():
            if text is not None:
                _require_text(text, "a completion")
    # A null or a value of another type where a list, a number or JSON belongs, or a broken comparison.
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"record {row['id']!r}: {error}") from error
    return PreferenceGroup(id=row["id"], prompt=row["prompt"], **parts)


def group_columns(group: Group) -> dict[str, Any]:
    """The columns of a group's prompt and content; the candidates are in the column of their kind."""
    kind = group.kind
    column = list(group.candidates) if kind == "text" else _embedded(group.candidates)
    return {
        "prompt": group.prompt,
        **{name: column if name == f"{kind}s" else None for name in CANDIDATES},
        "context": _embedded(group.context),
        "criterion": group.criterion,
    }


def group_of_columns(row: dict[str, Any]) -> Group:
    """The group of `group_columns`. Raises `ValueError` or `TypeError` if the columns are not valid."""
    return Group(
        prompt=row["prompt"],
        candidates=_candidates(row),
        context=tuple(filter(None, map(_bytes, row["context"]))),
        criterion=row["criterion"],
    )


class Fingerprint:
    """A sha256 over the content of groups, in order: equal content gives an equal fingerprint."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, group: PreferenceGroup) -> None:
        """Take in the next group."""
        row = to_row(group)
        for name in ("images", "videos", "context"):
            row[name] = row[name] and [_hashed(entry["bytes"]) for entry in row[name]]
        self._total.update(json.dumps(row, sort_keys=True).encode())

    def hexdigest(self) -> str:
        """The fingerprint of the groups so far."""
        return self._total.hexdigest()


def fingerprint(groups: Iterable[PreferenceGroup]) -> str:
    """The `Fingerprint` of all these groups."""
    total = Fingerprint()
    for group in groups:
        total.add(group)
    return total.hexdigest()


def _require_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; received {value!r:.60}")


def _embedded(files: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"bytes": data, "path": None} for data in files]


def _candidates(row: dict[str, Any]) -> tuple[Candidate, ...]:
    filled = [name for name in CANDIDATES if row[name] is not None]
    if len(filled) != 1:
        raise ValueError(f"candidates are in one of {', '.join(CANDIDATES)}; received {filled or 'none'}")
    if filled == ["texts"]:
        for text in row["texts"]:
            if text is not None:
                _require_text(text, "a text")
        return tuple(row["texts"])
    return tuple(map(_bytes, row[filled[0]]))


def _bytes(entry: dict[str, Any]) -> bytes | None:
    data, path = entry["bytes"], entry.get("path")
    if data is None and path is not None:
        raise ValueError(f"the image {path!r} is a path without bytes; a dataset embeds its files")
    if not isinstance(data, bytes | None):
        raise ValueError(f"an image must be bytes; received {type(data).__name__}")
    return data


def _hashed(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
