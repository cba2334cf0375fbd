"""Preference groups on disk: what is written is read, and nothing else is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.errors import DatasetError, RecordError
from prefrm.records import count_groups, fingerprint, read_groups, write_groups
from tests.prefrm.records.drawn import groups, pair


@given(st.lists(groups(), max_size=5, unique_by=lambda group: group.id))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("data")
    assert write_groups(iter(records), folder, "train") == len(records)
    back = list(read_groups(folder, "train"))
    assert back == records
    assert fingerprint(back) == fingerprint(records)
    assert [path.name for path in folder.iterdir()] == ["train.parquet"]


def test_more_records_than_one_batch_keep_their_order(tmp_path):
    records = [pair(id=str(n)) for n in range(600)]
    write_groups(records, tmp_path, "test")
    assert [record.id for record in read_groups(tmp_path, "test")] == [str(n) for n in range(600)]


def test_a_failed_write_leaves_the_earlier_file_and_no_other(tmp_path):
    write_groups([pair()], tmp_path, "train")
    with pytest.raises(DatasetError, match="two records have the id 'r1'"):
        write_groups([pair(prompt="new"), pair()], tmp_path, "train")
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
    assert list(read_groups(tmp_path, "train")) == [pair()]


def test_the_images_are_what_datasets_reads_as_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    from prefrm.media import encode_png

    png = encode_png(Image.new("RGB", (3, 2), "red"))
    write_groups([pair(candidates=(png, png))], tmp_path, "train")
    table = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    table = table.cast_column("images", datasets.List(datasets.Image()))
    assert [image.size for image in table[0]["images"]] == [(3, 2), (3, 2)]


def test_an_absent_split_names_those_there_are(tmp_path):
    write_groups([pair()], tmp_path, "validation")
    with pytest.raises(DatasetError, match=r"train\.parquet does not exist; .*: validation"):
        next(read_groups(tmp_path, "train"))
    with pytest.raises(DatasetError, match="no folder"):
        next(read_groups(tmp_path / "nowhere", "train"))
    with pytest.raises(DatasetError, match="no folder"):
        count_groups(tmp_path / "nowhere", "train")


def test_groups_are_counted(tmp_path):
    write_groups([pair(id=str(n)) for n in range(300)], tmp_path, "train")
    assert count_groups(tmp_path, "train") == 300


def test_a_truncated_file_is_named(tmp_path):
    write_groups([pair()], tmp_path, "train")
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"train\.parquet cannot be read"):
        next(read_groups(tmp_path, "train"))
    with pytest.raises(DatasetError, match=r"train\.parquet cannot be read"):
        count_groups(tmp_path, "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("id prompt", r"is not a preference dataset: it lacks the columns \['comparisons', 'completions'"),
        (
            "id prompt images comparisons quality tags texts",
            r"written by an older prefrm; build it again: it lacks the columns \['completions', 'context'",
        ),
    ],
)
def test_a_foreign_parquet_file_is_named(tmp_path, names, message):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: ["a"] for name in names.split()}), tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match=message):
        next(read_groups(tmp_path, "train"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("comparisons", [{"i": 0, "j": 0, "p": 0.5, "weight": 1.0}]),
        ("comparisons", [{"i": 0, "j": 1, "p": 2.0, "weight": 1.0}]),
        ("comparisons", [{"i": 0, "j": 1, "p": None, "weight": 1.0}]),
        ("comparisons", None),
        ("images", None),
        ("images", [{"bytes": b"x", "path": None}, None]),
        ("images", [{"bytes": b"x", "path": None}, {"bytes": None, "path": None}]),
        ("tags", "{not json"),
        ("tags", None),
        ("quality", [1.0]),
        ("prompt", None),
        ("id", None),
        ("tags", '["a list"]'),
        ("images", [{"bytes": None, "path": "cat.png"}, {"bytes": b"x", "path": None}]),
    ],
)
def test_a_record_that_breaks_the_rules_is_named_once(tmp_path, column, value):
    import pyarrow.parquet as pq

    write_groups([pair()], tmp_path, "train")
    table = pq.read_table(tmp_path / "train.parquet")
    rows = table.to_pylist()
    rows[0][column] = value
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), tmp_path / "train.parquet")
    with pytest.raises(RecordError) as raised:
        next(read_groups(tmp_path, "train"))
    assert str(raised.value).count("record " + ("None" if column == "id" else "'r1'")) == 1


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("id", 7, "record 7: id must be text; received 7"),
        ("prompt", b"a cat", "prompt must be text; received b'a cat'"),
        ("tags", ["counting"], r"tags must be text; received \['counting'\]"),
        ("completions", [1, 2], "a completion must be text; received 1"),
        ("quality", ["good", "bad"], "could not convert string to float"),
        ("images", [{"bytes": "x", "path": None}] * 2, "an image must be bytes; received str"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path, column, value, message):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_groups([pair()], tmp_path, "train")
    table = pq.read_table(tmp_path / "train.parquet")
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array([value])), tmp_path / "train.parquet")
    with pytest.raises(RecordError, match=message):
        next(read_groups(tmp_path, "train"))


def test_two_records_of_one_id_are_not_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_groups([pair()], tmp_path, "train")
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match=r"train\.parquet: two records have the id 'r1'"):
        list(read_groups(tmp_path, "train"))


@pytest.mark.parametrize("bit", [0, 5])
def test_a_flipped_bit_is_never_other_data(tmp_path, bit):
    records = [pair(id=str(n), prompt=f"ünder {n}", completions=("a", "b")) for n in range(3)]
    write_groups(records, tmp_path, "train")
    path = tmp_path / "train.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            # Some bits say nothing, such as a name of the program that wrote it.
            assert list(read_groups(tmp_path, "train")) == records
        except DatasetError as error:
            assert "train.parquet" in str(error)
        except RecordError:
            pass  # a column's type in the footer
