"""A logged group as a row of a parquet file, and what can be read of it without its candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefrm.records import group_columns, group_fields, import_pyarrow
from prefrm.scoring import matrix_of_row, matrix_row, matrix_types
from prefrm.winmatrix import Candidate, Group, Kind, WinMatrix

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CONTENT", "ENTRY", "LoggedEntry", "LoggedGroup", "entry_of_row", "schema", "to_row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedGroup:
    """A group of a training step, how it was judged, and the rewards and advantages of its candidates.

    Attributes:
        group: of K candidates. The last one is a reference if there are only K - 1 rewards.
        matrices: K x K, by the name of a reward, or "REWARD/CRITERION".
        rewards: K numbers by name, NaN or None for a candidate without one.
        advantages: K numbers, NaN for a candidate without one; None if they are not known.
        step: of the trainer, as in its metrics; None if it is not known.
        evaluation: whether the group is of an evaluation.
    """

    group: Group
    matrices: Mapping[str, WinMatrix]
    rewards: Mapping[str, Sequence[float | None]]
    advantages: Sequence[float] | None = None
    step: int | None = None
    evaluation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEntry:
    """A logged group without its candidates; the other attributes are those of `LoggedGroup`.

    Attributes:
        id: of the group in its folder, as `GroupLogReader.group` takes it.
        time: when it was written, in seconds since the epoch.
        kind, size: of the candidates, and K.
        context_images: how many images the context has.
    """

    id: str
    time: float
    prompt: str
    criterion: str
    kind: Kind
    size: int
    context_images: int
    matrices: Mapping[str, WinMatrix]
    rewards: Mapping[str, tuple[float | None, ...]]
    advantages: tuple[float | None, ...] | None = None
    step: int | None = None
    evaluation: bool = False


CONTENT = ("prompt", "images", "videos", "texts", "context", "criterion")
ENTRY = (
    *("step", "evaluation", "prompt", "criterion", "kind", "size", "context_images"),
    *("matrices", "rewards", "advantages"),
)
"""Columns of an entry: all but those of the content."""


def schema() -> "pa.Schema":
    """The columns of a file."""
    pa, _ = import_pyarrow()
    numbers = pa.list_(pa.float64())
    return pa.schema(
        [
            ("step", pa.int64()),
            ("evaluation", pa.bool_()),
            *group_fields(),
            ("kind", pa.string()),
            ("size", pa.int32()),
            ("context_images", pa.int32()),
            ("matrices", pa.list_(pa.struct([("name", pa.string()), *matrix_types(pa)]))),
            ("rewards", pa.list_(pa.struct([("name", pa.string()), ("values", numbers)]))),
            ("advantages", numbers),
        ]
    )


def to_row(logged: LoggedGroup) -> dict[str, Any]:
    """The columns of `schema`."""
    group, advantages = logged.group, logged.advantages
    return {
        "step": logged.step,
        "evaluation": logged.evaluation,
        **group_columns(_encodable(group)),
        "kind": group.kind,
        "size": group.size,
        "context_images": len(group.context),
        "matrices": [{"name": name, **matrix_row(matrix)} for name, matrix in logged.matrices.items()],
        "rewards": [{"name": name, "values": list(values)} for name, values in logged.rewards.items()],
        "advantages": None if advantages is None else list(advantages),
    }


def entry_of_row(row: Mapping[str, Any], *, id: str, time: float) -> LoggedEntry:
    """The entry of a row, of which the columns `ENTRY` are read."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value := row[name], list) else value for name in ENTRY
    }
    fields["matrices"] = {one["name"]: matrix_of_row(one) for one in row["matrices"]}
    fields["rewards"] = {one["name"]: tuple(one["values"]) for one in row["rewards"]}
    return LoggedEntry(id=id, time=time, **fields)


def _encodable(group: Group) -> Group:
    """The group with "?" for lone surrogates, which a policy may produce and UTF-8 cannot encode."""

    def text(value: Candidate) -> Any:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    return replace(
        group,
        prompt=text(group.prompt),
        criterion=text(group.criterion),
        candidates=tuple(map(text, group.candidates)),
    )
