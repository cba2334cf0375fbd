"""Preference groups: the one record of a preference dataset, its rules, and parquet on disk.

Polarity is written here and nowhere else: `Comparison.p` is the probability that candidate `i` is
preferred to candidate `j`. Recipes build comparisons with the constructors below, so none of them
decides for itself which way round a label goes.

A dataset is a folder with one parquet file for each split and a `dataset.json` that says where it
came from. Images are embedded as encoded bytes in a column that `datasets.Image` reads as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.chunks import chunks
from prefrm.errors import DataError, DatasetError, RecordError, missing_extra
from prefrm.winmatrix import Group

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "SPLITS",
    "Comparison",
    "DatasetInfo",
    "PreferenceGroup",
    "comparisons_from_ranking",
    "comparisons_from_scores",
    "count_groups",
    "count_row_groups",
    "fingerprint",
    "prompt_key",
    "read_groups",
    "read_info",
    "read_row_groups",
    "write_groups",
    "write_info",
]

SPLITS = ("train", "validation", "test")
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One statement about two candidates of a group.

    Attributes:
        i: index of the first candidate.
        j: index of the second candidate, not `i`.
        p: probability in [0, 1] that candidate i is preferred to candidate j; 0.5 is a tie.
        weight: > 0; how much this comparison counts in a loss or a mean.
    """

    i: int
    j: int
    p: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.i == self.j or min(self.i, self.j) < 0:
            raise RecordError(f"a comparison needs two different candidates; received i={self.i}, j={self.j}")
        if not 0.0 <= self.p <= 1.0:
            raise RecordError(f"p is the probability that i is preferred, in [0, 1]; received {self.p}")
        if not 0.0 < self.weight < float("inf"):
            raise RecordError(f"weight must be positive and finite; received {self.weight}")

    @classmethod
    def preferred(cls, winner: int, loser: int, *, weight: float = 1.0) -> "Comparison":
        """`winner` was preferred to `loser`, with certainty."""
        return cls(i=winner, j=loser, p=1.0, weight=weight)

    @classmethod
    def tie(cls, i: int, j: int, *, weight: float = 1.0) -> "Comparison":
        """Neither was preferred."""
        return cls(i=i, j=j, p=0.5, weight=weight)

    @property
    def is_strict(self) -> bool:
        """Whether one of the two is preferred (p is not 0.5)."""
        return self.p != 0.5

    def swapped(self) -> "Comparison":
        """The same statement with the candidates named the other way round; p becomes 1 - p, rounded."""
        return replace(self, i=self.j, j=self.i, p=1.0 - self.p)

    def flipped(self) -> "Comparison":
        """The opposite statement about the same candidates: label noise."""
        return replace(self, p=1.0 - self.p)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """A prompt, its candidates and what somebody preferred: one record of a preference dataset.

    Attributes:
        id: unique in its dataset; errors name it.
        prompt: what the candidates answer.
        images: K >= 2 encoded images; None where a candidate is missing.
        comparisons: statements about pairs of candidates; none may be about a missing one.
        quality: length K, the candidates' true quality where the source knows it (higher is better,
            comparable inside the group only), or None.
        tags: what reports break results down by, such as {"skill": "counting"}.
        texts: length K, what each candidate was made from where the source knows it (a drawing program,
            an SVG, a completion), None where it does not. No judge sees them; text policies train on them.
    """

    id: str
    prompt: str
    images: tuple[bytes | None, ...]
    comparisons: tuple[Comparison, ...]
    quality: tuple[float, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        size = len(self.images)
        if size < 2:
            raise RecordError(f"record {self.id!r} has {size} candidates; a group needs at least 2")
        if self.quality is not None and len(self.quality) != size:
            raise RecordError(f"record {self.id!r} has {size} candidates but {len(self.quality)} qualities")
        if self.texts is not None and len(self.texts) != size:
            raise RecordError(f"record {self.id!r} has {size} candidates but {len(self.texts)} texts")
        for c in self.comparisons:
            if max(c.i, c.j) >= size:
                raise RecordError(
                    f"record {self.id!r} compares candidates {c.i} and {c.j} but has {size}, numbered from 0"
                )
            if self.images[c.i] is None or self.images[c.j] is None:
                raise RecordError(
                    f"record {self.id!r} compares candidates {c.i} and {c.j}, one of which is missing"
                )

    def group(self) -> Group:
        """What a scorer sees: the prompt and the candidates, without any label."""
        return Group(prompt=self.prompt, images=self.images)


def comparisons_from_scores(scores: Sequence[float | None]) -> tuple[Comparison, ...]:
    """Every pair of scored candidates, lower index first; a higher score is preferred, equal ones tie.

    Raises:
        RecordError: a score is NaN, which is neither higher nor lower; None is what was not scored.
    """
    if any(score is not None and score != score for score in scores):
        raise RecordError(f"a score is NaN; use None for a candidate without one: {list(scores)}")
    return tuple(
        Comparison.tie(i, j)
        if a == b
        else (Comparison.preferred(i, j) if a > b else Comparison.preferred(i, j).flipped())
        for (i, a), (j, b) in combinations(((n, s) for n, s in enumerate(scores) if s is not None), 2)
    )


def comparisons_from_ranking(ranks: Sequence[float | None]) -> tuple[Comparison, ...]:
    """Every pair of ranked candidates, lower index first; rank 1 is the best, equal ranks tie."""
    return comparisons_from_scores([None if rank is None else -rank for rank in ranks])


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Where a dataset folder came from: the recipe, its options, and the fingerprint of each split."""

    recipe: str
    options: Mapping[str, Any]
    fingerprints: Mapping[str, str]


def write_groups(groups: Iterable[PreferenceGroup], folder: Path | str, split: str) -> int:
    """Write one split as `folder/split.parquet`, whole or not at all; returns the number of groups.

    Raises:
        DatasetError: two groups share an id. Nothing is left behind, and an earlier file stays as it was.
    """
    pa, pq = _pyarrow()
    target = Path(folder) / f"{split}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    count = 0
    try:
        with pq.ParquetWriter(partial, _schema(pa), write_page_checksum=True) as writer:
            for batch in chunks(_unique(groups, target), 256):
                rows = [_to_row(group) for group in batch]
                writer.write_table(pa.Table.from_pylist(rows, schema=_schema(pa)))
                count += len(rows)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


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
    pa, _ = _pyarrow()
    with _open_split(folder, split) as file:
        for number in range(file.num_row_groups) if row_groups is None else row_groups:
            count, rows = 0, file.metadata.row_group(number).num_rows
            for batch in file.iter_batches(64, row_groups=[number], columns=_schema(pa).names):
                for row in batch.to_pylist():
                    count += 1
                    yield _from_row(row)
            if count != rows:
                raise ValueError(f"row group {number} holds {count} rows instead of {rows}")


def count_row_groups(folder: Path | str, split: str) -> int:
    """How many row groups the file of a split has. Raises `DatasetError` as `read_groups`."""
    with _open_split(folder, split) as file:
        return int(file.num_row_groups)


def count_groups(folder: Path | str, split: str) -> int:
    """How many groups a split holds, from the file's footer. Raises `DatasetError` as `read_groups`."""
    with _open_split(folder, split) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _open_split(folder: Path | str, split: str) -> "Iterator[pq.ParquetFile]":
    pa, pq = _pyarrow()
    path = Path(folder) / f"{split}.parquet"
    if not path.is_file():
        found = sorted(p.stem for p in Path(folder).glob("*.parquet"))
        raise DatasetError(f"{path} does not exist; splits found in {folder}: {', '.join(found) or 'none'}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if missing := set(_schema(pa).names) - set(file.schema_arrow.names):
                raise DatasetError(f"{path} is no preference dataset: it lacks the columns {sorted(missing)}")
            yield file
    except DataError:
        raise
    # pyarrow raises many kinds on a damaged file; all of them mean that it cannot be read.
    except Exception as error:
        raise DatasetError(f"{path} cannot be read; it is damaged or no parquet file: {error}") from error


def write_info(folder: Path | str, info: DatasetInfo) -> None:
    """Write `folder/dataset.json`."""
    text = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "recipe": info.recipe,
            "options": dict(info.options),
            "fingerprints": dict(info.fingerprints),
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
        return DatasetInfo(recipe=raw["recipe"], options=raw["options"], fingerprints=raw["fingerprints"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is absent or malformed ({error}); build the dataset again") from error


def fingerprint(groups: Iterable[PreferenceGroup]) -> str:
    """A sha256 over the content of the groups, in order: equal content gives an equal fingerprint."""
    total = hashlib.sha256()
    for group in groups:
        row = _to_row(group)
        row["images"] = [None if i is None else hashlib.sha256(i).hexdigest() for i in group.images]
        total.update(json.dumps(row, sort_keys=True).encode())
    return total.hexdigest()


def prompt_key(prompt: str) -> str:
    """What tells prompts apart when splits are compared: neither letter case nor white space counts."""
    return " ".join(prompt.casefold().split())


def _schema(pa: Any) -> "pa.Schema":
    comparison = pa.struct(
        [("i", pa.int32()), ("j", pa.int32()), ("p", pa.float64()), ("weight", pa.float64())]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("prompt", pa.string()),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
            ("comparisons", pa.list_(comparison)),
            ("quality", pa.list_(pa.float64())),
            ("tags", pa.string()),
            ("texts", pa.list_(pa.string())),
        ]
    )


def _to_row(group: PreferenceGroup) -> dict[str, Any]:
    return {
        "id": group.id,
        "prompt": group.prompt,
        "images": [{"bytes": image, "path": None} for image in group.images],
        "comparisons": [{"i": c.i, "j": c.j, "p": c.p, "weight": c.weight} for c in group.comparisons],
        "quality": None if group.quality is None else list(group.quality),
        "tags": json.dumps(dict(group.tags), sort_keys=True),
        "texts": None if group.texts is None else list(group.texts),
    }


def _from_row(row: dict[str, Any]) -> PreferenceGroup:
    try:
        for name in ("id", "prompt", "tags"):
            _require_text(row[name], name)
        if not isinstance(tags := json.loads(row["tags"]), dict):
            raise ValueError(f"tags must be a JSON object; received {row['tags'][:60]}")
        parts: dict[str, Any] = {
            "images": tuple(map(_image, row["images"])),
            "comparisons": tuple(Comparison(**c) for c in row["comparisons"]),
            "quality": None if row["quality"] is None else tuple(map(float, row["quality"])),
            "tags": tags,
            "texts": None if row["texts"] is None else tuple(row["texts"]),
        }
        for text in parts["texts"] or ():
            if text is not None:
                _require_text(text, "a text")
    # A null or a value of another type where a list, a number or JSON belongs, or a broken comparison.
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"record {row['id']!r}: {error}") from error
    return PreferenceGroup(id=row["id"], prompt=row["prompt"], **parts)


def _require_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; received {value!r:.60}")


def _image(entry: dict[str, Any]) -> bytes | None:
    data, path = entry["bytes"], entry.get("path")
    if data is None and path is not None:
        raise ValueError(f"the image {path!r} is a path without bytes; a dataset embeds its images")
    if not isinstance(data, bytes | None):
        raise ValueError(f"an image must be bytes; received {type(data).__name__}")
    return data


def _unique(groups: Iterable[PreferenceGroup], target: Path) -> Iterator[PreferenceGroup]:
    seen: set[str] = set()
    for group in groups:
        if group.id in seen:
            raise DatasetError(f"{target}: two records have the id {group.id!r}; ids must be unique")
        seen.add(group.id)
        yield group


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow, pyarrow.parquet
