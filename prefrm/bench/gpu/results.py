"""What came of a part, as a file of JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefrm.files import write_json

__all__ = ["Result", "Status", "read_measured", "read_result", "write_measured", "write_result"]

Status = Literal["done", "failed", "timed out", "package missing", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a part.

    Attributes:
        part: its name.
        asked: version, device and settings: a result of anything else does not stand for it.
        status: only "done" stands for a later run.
        seconds: of the whole process.
        lines: the last ones that it wrote, unless it is done.
        measured: what it measured; of a part that was cut off, up to there.
    """

    part: str
    asked: Mapping[str, Any]
    status: Status
    seconds: float = 0.0
    lines: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)


def write_result(path: Path, result: Result) -> None:
    """Write the file, whole."""
    write_json(path, asdict(result))


def read_result(path: Path, asked: Mapping[str, Any]) -> Result | None:
    """The result in a file; None if there is none, or one of something else."""
    if not path.is_file():
        return None
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if fields["asked"] != _as_json(asked):
        return None
    return Result(**{**fields, "lines": tuple(fields["lines"])})


def write_measured(path: Path, measured: Mapping[str, Any]) -> None:
    """Keep what a part has measured so far. Raises `ValueError` if a number is not finite."""
    write_json(path, measured)


def read_measured(path: Path) -> dict[str, Any]:
    """What a part had measured when it ended; nothing if it came to nothing."""
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return measured


def _as_json(asked: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(asked))
