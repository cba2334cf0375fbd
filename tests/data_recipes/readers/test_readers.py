"""Readers: each format gives the rows that were written, from any row on, and a damaged file is named."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from data_recipes.readers import Part, read_source
from data_recipes.readers.json_rows import PIECE
from data_recipes.readers.part import named_split
from data_recipes.readers.tfrecord import _crc32c
from prefrm.errors import DataError, DatasetError
from tests.data_recipes.sources import image, write_json, write_jsonl, write_parquet, write_tar
from tests.data_recipes.tfrecords import example, field, varint

ROWS = [{"n": n, "text": f"row {n}"} for n in range(50)]


def read(part: Part, start: int = 0) -> list[dict[str, Any]]:
    rows = [row for _, row in part.read(start)]
    assert not any(isinstance(row, DataError) for row in rows)
    return rows  # type: ignore[return-value]


def parquet(folder: Path) -> Path:
    return write_parquet(folder / "rows.parquet", ROWS, row_group_size=7)


def arrow(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def json_list(folder: Path) -> Path:
    return write_json(folder / "rows.json", ROWS)


def json_object_of_lists(folder: Path) -> Path:
    return write_json(folder / "rows.json", {"version": 1, "pairs": ROWS})


def json_lines_in_a_json_file(folder: Path) -> Path:
    return write_jsonl(folder / "rows.json", ROWS)


def json_lines(folder: Path) -> Path:
    return write_jsonl(folder / "rows.jsonl", ROWS)


def webdataset(folder: Path) -> Path:
    return write_tar(folder / "0.tar", {f"{row['n']:03d}.json": json.dumps(row).encode() for row in ROWS})


@pytest.mark.parametrize(
    "write",
    [parquet, arrow, json_list, json_object_of_lists, json_lines_in_a_json_file, json_lines, webdataset],
)
def test_every_row_is_read_from_any_row_on(tmp_path: Path, write: Any) -> None:
    (part,) = read_source(str(write(tmp_path)))
    values = [row.get("json", row) for row in read(part)]
    assert values == ROWS
    assert [row.get("json", row) for row in read(part, 23)] == ROWS[23:]
    assert read(part, 50) == []


def test_an_object_of_objects_gives_rows_with_their_keys(tmp_path: Path) -> None:
    source = write_json(tmp_path / "rows.json", {"a_x": {"n": 1}, "b": {"n": 2}})
    (part,) = read_source(str(source))
    assert read(part) == [{"key": "a_x", "n": 1}, {"key": "b", "n": 2}]


def test_json_of_any_size_and_layout_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Rows, numbers and escapes lie across the ends of pieces."""
    rows: list[dict[str, Any]] = [{"n": 10**15 + n, "s": '"]}é\\' * (n % 7)} for n in range(4000)]
    rows[11]["s"] = "x" * (3 * PIECE)
    (tmp_path / "rows.json").write_text("\ufeff" + json.dumps(rows, indent=3), encoding="utf-8")
    (part,) = read_source(str(tmp_path / "rows.json"))
    assert read(part) == rows


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"a": 1}, {"a": ', "ends too early"),
        ('[{"a": 1} {"a": 2}]', "',' expected, found '{'"),
        ("[1]", "an element is not an object: '1'"),
        ("", "ends too early"),
        ("3", "neither a list nor an object"),
    ],
)
def test_malformed_json_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    (part,) = read_source(str(tmp_path / "rows.json"))
    with pytest.raises(DatasetError, match=r"rows\.json is not a JSON file of rows: ") as caught:
        read(part)
    assert complaint in str(caught.value)


def test_columns_with_images_are_bytes_and_others_are_not_read(tmp_path: Path) -> None:
    rows = [{"feature": image("a"), "raw": image("b"), "list": [1, 2], "other": 3}]
    source = write_parquet(tmp_path / "rows.parquet", rows, images=("feature",))
    (part,) = read_source(str(source), columns=("feature", "raw", "list", "absent"))
    assert part.total == 1
    assert read(part) == [{"feature": {"bytes": image("a"), "path": None}, "raw": image("b"), "list": [1, 2]}]


def test_members_of_a_webdataset_are_rows_by_their_names(tmp_path: Path) -> None:
    members = {"a/0.jpg_0.jpg": b"0", "a/0.label_0.txt": b"1.0", "a/1.jpg_0.jpg": b"1", "a/1.x.json": b"[2]"}
    (part,) = read_source(str(write_tar(tmp_path / "0.tar", members)))
    assert read(part) == [
        {"__key__": "a/0", "jpg_0.jpg": b"0", "label_0.txt": "1.0"},
        {"__key__": "a/1", "jpg_0.jpg": b"1", "x.json": [2]},
    ]


@pytest.mark.parametrize("damage", [lambda data: data[:3000], lambda data: data[:5632] + b"?" * 5000])
def test_a_tar_that_is_cut_off_or_damaged_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    source = write_tar(tmp_path / "0.tar", {"0.jpg": bytes(5000), "1.jpg": bytes(9)})
    source.write_bytes(damage(source.read_bytes()))
    (part,) = read_source(str(source))
    with pytest.raises(DatasetError, match=r"0\.tar is not a tar file, or ends too early"):
        read(part)


def test_tfrecord_without_tensorflow(tmp_path: Path) -> None:
    """The check value of CRC-32C is that of its specification (RFC 3720, B.4)."""
    assert _crc32c(bytes(32)) == 0x8A9136AA
    record = example(
        filename=field(1, field(1, b"train/x.png")),
        score=field(2, field(1, struct.pack("<f", 0.25))),
        many=field(2, field(1, struct.pack("<2f", 0.5, 1.0))),
        packed=field(3, field(1, varint(300) + varint(2**64 - 1))),
        single=field(3, varint(1 << 3) + varint(7)),
        empty=b"",
    )
    (tmp_path / "x.tfrecord").write_bytes(record * 2)
    (part,) = read_source(str(tmp_path / "x.tfrecord"))
    row = {
        "filename": b"train/x.png",
        "score": 0.25,
        "many": [0.5, 1.0],
        "packed": [300, -1],
        "single": 7,
        "empty": [],
    }
    assert read(part) == [row, row]
    (tmp_path / "x.tfrecord").write_bytes(record + b"\0" + record)
    with pytest.raises(DatasetError, match=r"the length of the record at byte .* is damaged"):
        read(part)
    (tmp_path / "x.tfrecord").write_bytes(record[:-9])
    with pytest.raises(DatasetError, match="it ends inside a record"):
        read(part)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002-ab.parquet", "train"),
        ("val.json", "validation"),
        ("images/test/test_1/test_1.json", "test"),
        ("training_notes.json", None),
        ("rows.parquet", None),
    ],
)
def test_the_split_of_a_file_by_its_name(path: str, split: str | None) -> None:
    assert named_split(path) == split


def test_of_a_folder_one_format_and_the_files_of_splits_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "data/train-0.parquet",
        "data/train-1.parquet",
        "data/test-0.parquet",
        "data/extra-0.parquet",
    ):
        write_parquet(tmp_path / name, ROWS)
    write_json(tmp_path / "dataset_infos.json", ROWS)
    # What systems and libraries keep beside files; rows of the last would count twice.
    for name in ("data/._train-0.parquet", "__MACOSX/test-0.parquet", ".cache/train.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not a parquet file")
    (tmp_path / "data" / "cache-0f.arrow").write_bytes(b"of Dataset.map")
    parts = read_source(str(tmp_path))
    assert [(part.name, part.split) for part in parts] == [
        ("data/test-0.parquet", "test"),
        ("data/train-0.parquet", "train"),
        ("data/train-1.parquet", "train"),
    ]
    assert caplog.messages == [
        f"{tmp_path}: files skipped, because their names contain no split that is read: data/extra-0.parquet"
    ]
    assert [part.split for part in read_source(str(tmp_path), splits={})] == [None] * 4
    assert [part.name for part in read_source(str(tmp_path), files="*.json")] == ["dataset_infos.json"]


@pytest.mark.parametrize("name", ["absent", "notes.txt", "empty"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=name):
        read_source(str(tmp_path / name))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"rows\.parquet cannot be read"):
        read_source(str(path))
