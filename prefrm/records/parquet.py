"""The parquet files of a dataset folder, one for each split.

Images and videos are embedded as encoded bytes in columns that `datasets.Image` and `datasets.Video` read as
they are.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.errors import DataError, DatasetError, missing_extra
from prefrm.files import write_file_whole
from prefrm.media import digest
from prefrm.records.record import PreferenceGroup, prompt_key
from prefrm.records.row import from_row, to_row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "SPLITS",
    "arrow_schema",
    "count_groups",
    "count_row_groups",
    "group_fields",
    "import_pyarrow",
    "read_groups",
    "read_prompt_keys",
    "read_prompts",
    "read_row_groups",
    "row_group_sizes",
    "split_file",
    "write_groups",
]

SPLITS = ("train", "validation", "test")
# Of a row group: it is held in memory whole when it is written.
ROW_GROUP_GROUPS = 256
ROW_GROUP_BYTES = 32 * 2**20
# Of a dataset from before candidates had kinds.
OLDER_COLUMNS = frozenset({"id", "prompt", "images", "comparisons", "quality", "tags"})
GROUPS, PROMPTS = 64, 1024  # that are decoded together, with their images and without


def write_groups(groups: Iterable[PreferenceGroup], folder: Path | str, split: str) -> int:
    """Write one split as `folder/split.parquet`, whole or not at all; returns the number of groups.

    Raises:
        DatasetError: two groups share an id. Nothing is left behind, and an earlier file stays as it was.
    """
    pa, pq = import_pyarrow()
    target = Path(folder) / f"{split}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        write_file_whole(target) as partial,
        pq.ParquetWriter(partial, arrow_schema(), write_page_checksum=True) as writer,
    ):
        for batch in _row_groups(_unique(groups, target)):
            rows = [to_row(group) for group in batch]
            writer.write_table(pa.Table.from_pylist(rows, schema=arrow_schema()))
            count += len(rows)
    return count


def _row_groups(groups: Iterable[PreferenceGroup]) -> Iterator[list[PreferenceGroup]]:
    """Consecutive groups, bounded in number and in bytes of content."""
    batch, size = list[PreferenceGroup](), 0
    for group in groups:
        batch.append(group)
        size += group.group().content_bytes
        if len(batch) == ROW_GROUP_GROUPS or size >= ROW_GROUP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_groups(folder: Path | str, split: str) -> Iterator[PreferenceGroup]:
    """The groups of one split, in order, read as a stream.

    Raises:
        DatasetError: there is no such split, the file is damaged or of another format, or two records have
            one id; the file is named.
        RecordError: a record breaks its own rules; its id is named.
    """
    return _unique(_read(folder, split), Path(folder) / f"{split}.parquet")


def read_row_groups(folder: Path | str, split: str, numbers: Iterable[int]) -> Iterator[PreferenceGroup]:
    """The groups of those row groups of the file, numbered from 0, one row group at a time, in that order.

    Raises:
        DatasetError, RecordError: as `read_groups`, but ids are not compared.
    """
    return _read(folder, split, numbers)


def _read(
    folder: Path | str, split: str, row_groups: Iterable[int] | None = None
) -> Iterator[PreferenceGroup]:
    with _open_split(folder, split) as file:
        for number in range(file.num_row_groups) if row_groups is None else row_groups:
            count, rows = 0, file.metadata.row_group(number).num_rows
            for batch in file.iter_batches(GROUPS, row_groups=[number], columns=arrow_schema().names):
                for row in batch.to_pylist():
                    count += 1
                    yield from_row(row)
            if count != rows:
                raise ValueError(f"row group {number} holds {count} rows instead of {rows}")


def read_prompts(folder: Path | str, split: str) -> Iterator[str]:
    """The prompt of each group of a split, in order, read as a stream; no other column is read.

    Raises:
        DatasetError: as `read_groups`.
    """
    with _open_split(folder, split) as file:
        for batch in file.iter_batches(PROMPTS, columns=["prompt"]):
            yield from batch["prompt"].to_pylist()


def read_prompt_keys(folder: Path | str, split: str) -> Iterator[str]:
    """`PreferenceGroup.prompt_key` of each group of a split, in order; no candidate is read.

    Raises:
        DatasetError: as `read_groups`.
    """
    with _open_split(folder, split) as file:
        for batch in file.iter_batches(GROUPS, columns=["prompt", "context"]):
            for row in batch.to_pylist():
                yield prompt_key(row["prompt"], (digest(image["bytes"]) for image in row["context"]))


def count_row_groups(folder: Path | str, split: str) -> int:
    """How many row groups the file of a split has. Raises `DatasetError` as `read_groups`."""
    return len(row_group_sizes(folder, split))


def row_group_sizes(folder: Path | str, split: str) -> list[int]:
    """How many groups each row group of the file holds. Raises `DatasetError` as `read_groups`."""
    with _open_split(folder, split) as file:
        return [int(file.metadata.row_group(n).num_rows) for n in range(file.num_row_groups)]


def count_groups(folder: Path | str, split: str) -> int:
    """How many groups a split holds, from the file's footer. Raises `DatasetError` as `read_groups`."""
    with _open_split(folder, split) as file:
        return int(file.metadata.num_rows)


def split_file(folder: Path | str, split: str) -> Path:
    """The file of a split. Raises `DatasetError` that lists the splits of the folder if there is none."""
    path = Path(folder) / f"{split}.parquet"
    if not Path(folder).is_dir():
        raise DatasetError(f"there is no folder {folder}; `prefrm data build` makes datasets")
    if not path.is_file():
        found = sorted(p.stem for p in Path(folder).glob("*.parquet"))
        raise DatasetError(f"{path} does not exist; splits found in {folder}: {', '.join(found) or 'none'}")
    return path


def arrow_schema() -> "pa.Schema":
    """The columns that `to_row` fills."""
    pa, _ = import_pyarrow()
    comparison = pa.struct(
        [("i", pa.int32()), ("j", pa.int32()), ("p", pa.float64()), ("weight", pa.float64())]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            *group_fields(),
            ("comparisons", pa.list_(comparison)),
            ("quality", pa.list_(pa.float64())),
            ("tags", pa.string()),
            ("completions", pa.list_(pa.string())),
        ]
    )


def group_fields() -> list[tuple[str, "pa.DataType"]]:
    """Names and types of the columns that `group_columns` fills."""
    pa, _ = import_pyarrow()
    files = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return [
        ("prompt", pa.string()),
        ("images", files),
        ("videos", files),
        ("texts", pa.list_(pa.string())),
        ("context", files),
        ("criterion", pa.string()),
    ]


@contextmanager
def _open_split(folder: Path | str, split: str) -> "Iterator[pq.ParquetFile]":
    _, pq = import_pyarrow()
    path = split_file(folder, split)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = set(file.schema_arrow.names)
            if missing := set(arrow_schema().names) - names:
                reason = f"it lacks the columns {sorted(missing)}"
                if names >= OLDER_COLUMNS:
                    raise DatasetError(f"{path} was written by an older prefrm; build it again: {reason}")
                raise DatasetError(f"{path} is not a preference dataset: {reason}")
            yield file
    except DataError:
        raise
    # pyarrow raises many kinds on a damaged file; all of them mean that it cannot be read.
    except Exception as error:
        raise DatasetError(f"{path} cannot be read; it is damaged or not a parquet file: {error}") from error


def _unique(groups: Iterable[PreferenceGroup], target: Path) -> Iterator[PreferenceGroup]:
    seen: set[str] = set()
    for group in groups:
        if group.id in seen:
            raise DatasetError(f"{target}: two records have the id {group.id!r}; ids must be unique")
        seen.add(group.id)
        yield group


def import_pyarrow() -> tuple[Any, Any]:
    """The packages `pyarrow` and `pyarrow.parquet`. Raises `MissingExtraError` if they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow, pyarrow.parquet
