"""Win matrices on disk: parquet shards, each whole or absent, and the `label.json` that says whose they are.

    out/label.json                        format version, judge, shard size
    out/win_matrices/part-00000.parquet   one row for each group, in the dataset's order

A row has `id`, `prompt`, the `criterion` that the judge was asked by ("" for overall preference and for
several criteria), the matrices `win_matrix`, `order_gap`, `tie` (K lists of K, NaN where there is
no value) and `valid` (where it is false, a number in `win_matrix` was inferred from judged pairs), and for
each candidate `win_rate` (NaN where it has no known opponent) and `errors`; `ranking` holds the indices of
the candidates that have a win rate, highest first, and `pair_errors` the `pair` and the `reason` of each pair
that the judge refused by itself. Where the judge was asked by several criteria, these are of the combined
matrix, and `criteria` has the same for each criterion by its name. A shard's parquet metadata carries the
fingerprint of the groups that it was made from, so that it is never taken for that of other data.

Shapes: K candidates of a group.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefrm.errors import DatasetError, missing_extra
from prefrm.files import write_file_whole, write_json
from prefrm.records import Fingerprint, PreferenceGroup
from prefrm.rewards import Criteria
from prefrm.scoring import matrix_of_row, matrix_row, matrix_types
from prefrm.winmatrix import WinMatrix

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "METADATA_KEY",
    "LabelledGroup",
    "ShardMetadata",
    "ShardWriter",
    "Summary",
    "check_folder",
    "check_shard",
    "claim_folder",
    "labelled_criteria",
    "labelled_shards",
    "pyarrow",
    "read_matrices",
    "read_metadata",
    "read_shard",
    "shard_path",
]

FORMAT_VERSION = 2
FOLDER = "win_matrices"
METADATA_KEY = b"prefrm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was labelled.

    Attributes:
        groups: number of groups.
        pairs: number of unordered pairs in them.
        unjudged_pairs: how many of these were neither judged nor inferred.
        inferred_pairs: how many of these were inferred from others, which were judged.
        unreadable: number of candidates that could not be judged although the dataset has them.
        with_texts: number of groups whose candidates are texts, or carry those that they were made from.
        without_images: number of groups whose candidates are videos or texts.
        with_context: number of groups with context images.
    """

    groups: int = 0
    pairs: int = 0
    unjudged_pairs: int = 0
    inferred_pairs: int = 0
    unreadable: int = 0
    with_texts: int = 0
    without_images: int = 0
    with_context: int = 0

    def __add__(self, other: "Summary") -> "Summary":
        mine, theirs = asdict(self), asdict(other)
        return Summary(**{name: mine[name] + theirs[name] for name in mine})

    @classmethod
    def of(cls, group: PreferenceGroup, matrix: WinMatrix) -> "Summary":
        """The summary of one group."""
        size, kind = matrix.size, group.group().kind
        lost = zip(group.candidates, matrix.errors, strict=True)
        return cls(
            groups=1,
            pairs=size * (size - 1) // 2,
            unjudged_pairs=int(np.triu(~matrix.known, 1).sum()),
            inferred_pairs=int(np.triu(matrix.inferred, 1).sum()),
            unreadable=sum(bool(error) and image is not None for image, error in lost),
            with_texts=int(kind == "text" or group.completions is not None),
            without_images=int(kind != "image"),
            with_context=int(bool(group.context)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledGroup:
    """One row of a shard: the group's id, its prompt, and what the judge said.

    `criterion` is what it was asked by: "" is overall preference, or several criteria. `criteria` then has
    the matrix by each of these, of which `matrix` is combined.
    """

    id: str
    prompt: str
    matrix: WinMatrix
    criterion: str = ""
    criteria: Mapping[str, WinMatrix] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMetadata:
    """What a shard's parquet metadata says: its groups' fingerprint and summary, and several criteria."""

    fingerprint: str
    summary: Summary
    criteria: tuple[str, ...] = ()


def claim_folder(out: Path, *, judge: str, shard_size: int, criteria: Criteria | None = None) -> None:
    """Write `label.json`, if there is none."""
    path = out / "label.json"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, _claim(judge, shard_size, criteria))


def check_folder(out: Path, *, judge: str, shard_size: int, criteria: Criteria | None = None) -> None:
    """Check what `label.json` says, if there is one.

    Raises:
        DatasetError: the folder was labelled by another judge, by other criteria, or with another shard size
            or format.
    """
    path = out / "label.json"
    if not path.exists():
        return
    theirs = _read_json(path)
    for key, value in _claim(judge, shard_size, criteria).items():
        if theirs.get(key) != value:
            raise DatasetError(
                f"{out} was labelled with {key} {theirs.get(key)!r}, not {value!r}; "
                "give another output folder, or delete this one to label again"
            )


def labelled_shards(out: Path) -> list[Path]:
    """The complete shards, in order. Raises `DatasetError` if there is none, or of another format."""
    claim = out / "label.json"
    if claim.exists() and (version := _read_json(claim).get("format_version")) != FORMAT_VERSION:
        raise DatasetError(
            f"{out} was labelled with format_version {version!r}, not {FORMAT_VERSION}; "
            "give another output folder, or delete this one to label again"
        )
    found = sorted((out / FOLDER).glob("part-*.parquet"))
    if not found:
        raise DatasetError(f"{out / FOLDER} holds no win matrices; label a dataset into {out} first")
    return found


def labelled_criteria(out: Path) -> tuple[str, ...]:
    """The several criteria by which a folder was labelled. Raises `DatasetError` if nothing was."""
    return read_metadata(labelled_shards(out)[0]).criteria


def shard_path(out: Path, number: int) -> Path:
    """Where shard `number` is, or will be."""
    return out / FOLDER / f"part-{number:05d}.parquet"


class ShardWriter:
    """One shard, group by group; it keeps no images, and writes nothing before `write`.

    Attributes:
        path: where it will be.
        summary: of the groups so far.
    """

    def __init__(self, path: Path, criteria: Criteria | None = None) -> None:
        self.path = path
        names = () if criteria is None else criteria.names
        self._criteria = names if len(names) > 1 else ()
        # Of a group's own there may be any, of those asked instead of it one or several.
        self._criterion = None if criteria is None else "" if self._criteria else names[0]
        self.summary = Summary()
        self._fingerprint = Fingerprint()
        self._rows: list[dict[str, Any]] = []

    def add(
        self, group: PreferenceGroup, matrix: WinMatrix, criteria: Mapping[str, WinMatrix] | None = None
    ) -> None:
        """Take in the next group; `criteria` has the matrices by each of the shard's criteria, if any."""
        self.summary += Summary.of(group, matrix)
        self._fingerprint.add(group)
        parts = {name: matrix_row(part) for name, part in (criteria or {}).items()}
        criterion = group.criterion if self._criterion is None else self._criterion
        row = {"id": group.id, "prompt": group.prompt, "criterion": criterion, **matrix_row(matrix)}
        self._rows.append(row | ({"criteria": parts} if parts else {}))

    def write(self) -> None:
        """Write the shard, whole or not at all."""
        pa, pq = pyarrow()
        metadata: dict[str, Any] = {
            "fingerprint": self._fingerprint.hexdigest(),
            "summary": asdict(self.summary),
        }
        metadata["criteria"] = self._criteria
        schema = _schema(pa, self._criteria).with_metadata({METADATA_KEY: json.dumps(metadata)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_file_whole(self.path) as partial:
            pq.write_table(pa.Table.from_pylist(self._rows, schema=schema), partial, write_page_checksum=True)


def check_shard(path: Path, groups: Iterable[PreferenceGroup]) -> Summary:
    """The summary of a shard that is there. Raises `DatasetError` if it was made from other groups."""
    found, total, ids = read_metadata(path), Fingerprint(), list[str]()
    for group in groups:
        total.add(group)
        ids.append(group.id)
    if found.fingerprint != total.hexdigest():
        received = f"the {len(ids)} groups from {ids[0]!r} on" if ids else "a dataset that ends before it"
        raise DatasetError(
            f"{path} was labelled from other data than {received}; "
            "give the same data in the same order, or another output folder"
        )
    return found.summary


def read_metadata(path: Path) -> ShardMetadata:
    """What a shard says of itself. Raises `DatasetError` if it is damaged or no shard."""
    _, pq = pyarrow()
    try:
        raw = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
        return ShardMetadata(
            fingerprint=raw["fingerprint"],
            summary=Summary(**raw["summary"]),
            criteria=tuple(raw["criteria"]),
        )
    # pyarrow raises many kinds on a damaged file, here and below.
    except Exception as error:
        raise _damaged(path, error) from error


def read_shard(path: Path) -> Iterator[LabelledGroup]:
    """A shard's rows, in order. Raises `DatasetError` if it is damaged."""
    pa, pq = pyarrow()
    metadata, count = read_metadata(path), 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_schema(pa, metadata.criteria)):
                raise ValueError("its columns are others")
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    count += 1
                    yield _from_row(row)
        if count != metadata.summary.groups:
            raise ValueError(f"it holds {count} rows instead of {metadata.summary.groups}")
    except Exception as error:
        raise _damaged(path, error) from error


def read_matrices(out: Path | str) -> Iterator[LabelledGroup]:
    """Everything that was labelled into `out` so far, in order, read as a stream.

    Raises:
        DatasetError: nothing was, or a shard is damaged.
    """
    for path in labelled_shards(Path(out)):
        yield from read_shard(path)


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises `MissingExtraError` without them."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pa, pq


def _schema(pa: Any, criteria: Sequence[str]) -> "pa.Schema":
    fields = matrix_types(pa)
    parts = [(name, pa.struct(fields)) for name in criteria]
    columns = [*((name, pa.string()) for name in ("id", "prompt", "criterion")), *fields]
    return pa.schema(columns + ([("criteria", pa.struct(parts))] if parts else []))


def _from_row(row: dict[str, Any]) -> LabelledGroup:
    parts = {name: matrix_of_row(part) for name, part in row.get("criteria", {}).items()}
    told = {name: row[name] for name in ("id", "prompt", "criterion")}
    return LabelledGroup(**told, matrix=matrix_of_row(row), criteria=parts)


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path} is damaged or no shard of win matrices ({error}); delete it to label it again"
    )


def _claim(judge: str, shard_size: int, criteria: Criteria | None) -> dict[str, Any]:
    claim: dict[str, Any] = {"format_version": FORMAT_VERSION, "judge": judge, "shard_size": shard_size}
    return claim | {"criteria": None if criteria is None else criteria.describe()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is malformed ({error}); this is no folder that prefrm labelled"
        ) from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} is malformed; this is no folder that prefrm labelled")
    return value
