"""Preference groups: their rules, the one polarity, and the way to disk and back."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.errors import DatasetError, RecordError
from prefrm.records import (
    Comparison,
    DatasetInfo,
    PreferenceGroup,
    comparisons_from_ranking,
    comparisons_from_scores,
    count_groups,
    fingerprint,
    read_groups,
    read_info,
    write_groups,
    write_info,
)
from prefrm.winmatrix import Group

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WEIGHTS = st.floats(0, 1e6, exclude_min=True)


@st.composite
def comparisons(draw, candidates):
    i, j = draw(st.permutations(candidates))[:2]
    return Comparison(i=i, j=j, p=draw(st.floats(0, 1)), weight=draw(WEIGHTS))


@st.composite
def groups(draw):
    images = draw(st.lists(st.none() | st.binary(max_size=8), min_size=2, max_size=5))
    present = [n for n, image in enumerate(images) if image is not None]
    size = len(images)
    return PreferenceGroup(
        id=draw(TEXT),
        prompt=draw(TEXT),
        images=tuple(images),
        comparisons=tuple(draw(st.lists(comparisons(present), max_size=4))) if len(present) > 1 else (),
        quality=draw(st.none() | st.tuples(*[st.floats(allow_nan=False)] * size)),
        tags=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        texts=draw(st.none() | st.tuples(*[st.none() | TEXT] * size)),
    )


def pair(**changes):
    record = PreferenceGroup(
        id="r1", prompt="a cat", images=(b"x", b"y"), comparisons=(Comparison.preferred(1, 0),)
    )
    return replace(record, **changes)


class TestPolarity:
    """`p` is the probability that candidate i is preferred to candidate j."""

    def test_preferred(self):
        assert Comparison.preferred(2, 5) == Comparison(i=2, j=5, p=1.0)
        assert Comparison.preferred(2, 5, weight=3.0).weight == 3.0

    def test_a_higher_score_is_preferred(self):
        assert comparisons_from_scores([1.0, 3.0, 3.0]) == (
            Comparison(i=0, j=1, p=0.0),
            Comparison(i=0, j=2, p=0.0),
            Comparison(i=1, j=2, p=0.5),
        )

    def test_a_lower_rank_is_preferred(self):
        assert comparisons_from_ranking([1, 2, None, 1]) == (
            Comparison(i=0, j=1, p=1.0),
            Comparison(i=0, j=3, p=0.5),
            Comparison(i=1, j=3, p=0.0),
        )

    @given(st.lists(st.none() | st.floats(allow_nan=False), max_size=6))
    def test_scores_and_comparisons_agree(self, scores):
        made = comparisons_from_scores(scores)
        known = sum(score is not None for score in scores)
        assert len(made) == known * (known - 1) // 2
        for c in made:
            assert c.i < c.j
            assert (c.p > 0.5) == (scores[c.i] > scores[c.j])
            assert c.is_strict == (scores[c.i] != scores[c.j])

    @given(st.lists(st.integers(1, 5), min_size=2, max_size=6))
    def test_a_ranking_is_the_scores_turned_over(self, ranks):
        assert comparisons_from_ranking(ranks) == comparisons_from_scores([-rank for rank in ranks])

    @pytest.mark.parametrize("make", [comparisons_from_scores, comparisons_from_ranking])
    def test_a_nan_is_no_lost_comparison(self, make):
        with pytest.raises(RecordError, match="use None"):
            make([1.0, math.nan])

    @given(comparisons(range(4)))
    def test_swapping_says_the_same_and_flipping_the_opposite(self, c):
        swapped, flipped = c.swapped(), c.flipped()
        assert (swapped.i, swapped.j) == (c.j, c.i)
        assert (flipped.i, flipped.j) == (c.i, c.j)
        assert swapped.p == flipped.p == 1 - c.p
        assert swapped.weight == flipped.weight == c.weight
        assert swapped.swapped().p == pytest.approx(c.p, abs=2**-53)

    def test_a_tie_is_not_strict_whichever_way_round(self):
        tie = Comparison.tie(0, 1, weight=2.0)
        assert not tie.is_strict
        assert tie.flipped() == tie
        assert tie.swapped() == Comparison.tie(1, 0, weight=2.0)
        assert Comparison.preferred(0, 1).swapped() == Comparison.preferred(1, 0).flipped()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(i=1, j=1, p=0.5), "two different candidates; received i=1, j=1"),
        (dict(i=-1, j=1, p=0.5), "two different candidates; received i=-1"),
        (dict(i=0, j=1, p=1.1), "received 1.1"),
        (dict(i=0, j=1, p=-0.1), "received -0.1"),
        (dict(i=0, j=1, p=math.nan), "received nan"),
        (dict(i=0, j=1, p=0.5, weight=0.0), "weight must be positive and finite; received 0.0"),
        (dict(i=0, j=1, p=0.5, weight=-1.0), "received -1.0"),
        (dict(i=0, j=1, p=0.5, weight=math.inf), "received inf"),
        (dict(i=0, j=1, p=0.5, weight=math.nan), "received nan"),
    ],
)
def test_a_bad_comparison_is_refused(fields, message):
    with pytest.raises(RecordError, match=message):
        Comparison(**fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=(b"x",), comparisons=()), "'r1' has 1 candidates; a group needs at least 2"),
        (dict(quality=(1.0,)), "'r1' has 2 candidates but 1 qualities"),
        (dict(texts=("a", "b", "c")), "'r1' has 2 candidates but 3 texts"),
        (dict(comparisons=(Comparison.tie(0, 2),)), "compares candidates 0 and 2 but has 2"),
        (dict(images=(b"x", None)), "compares candidates 1 and 0, one of which is missing"),
    ],
)
def test_a_bad_group_is_refused_by_name(changes, message):
    with pytest.raises(RecordError, match=message):
        pair(**changes)


def test_a_scorer_sees_no_label():
    assert pair(quality=(0.0, 1.0), texts=("a", "b")).group() == Group(prompt="a cat", images=(b"x", b"y"))


class TestDisk:
    @given(st.lists(groups(), max_size=5, unique_by=lambda group: group.id))
    @settings(max_examples=40, deadline=None)
    def test_what_is_written_is_read(self, tmp_path_factory, records):
        folder = tmp_path_factory.mktemp("data")
        assert write_groups(iter(records), folder, "train") == len(records)
        back = list(read_groups(folder, "train"))
        assert back == records
        assert fingerprint(back) == fingerprint(records)
        assert [path.name for path in folder.iterdir()] == ["train.parquet"]

    def test_more_records_than_one_batch_keep_their_order(self, tmp_path):
        records = [pair(id=str(n)) for n in range(600)]
        write_groups(records, tmp_path, "test")
        assert [record.id for record in read_groups(tmp_path, "test")] == [str(n) for n in range(600)]

    def test_a_failed_write_leaves_the_earlier_file_and_no_other(self, tmp_path):
        write_groups([pair()], tmp_path, "train")
        with pytest.raises(DatasetError, match="two records have the id 'r1'"):
            write_groups([pair(prompt="new"), pair()], tmp_path, "train")
        assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
        assert list(read_groups(tmp_path, "train")) == [pair()]

    def test_the_images_are_what_datasets_reads_as_images(self, tmp_path):
        datasets = pytest.importorskip("datasets")
        from PIL import Image

        from prefrm.media import encode_png

        png = encode_png(Image.new("RGB", (3, 2), "red"))
        write_groups([pair(images=(png, png))], tmp_path, "train")
        table = datasets.Dataset.from_parquet(
            str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache")
        )
        table = table.cast_column("images", datasets.List(datasets.Image()))
        assert [image.size for image in table[0]["images"]] == [(3, 2), (3, 2)]

    def test_an_absent_split_names_those_there_are(self, tmp_path):
        write_groups([pair()], tmp_path, "validation")
        with pytest.raises(DatasetError, match=r"train\.parquet does not exist; .*: validation"):
            next(read_groups(tmp_path, "train"))
        with pytest.raises(DatasetError, match="none"):
            next(read_groups(tmp_path / "nowhere", "train"))
        with pytest.raises(DatasetError, match="none"):
            count_groups(tmp_path / "nowhere", "train")

    def test_groups_are_counted(self, tmp_path):
        write_groups([pair(id=str(n)) for n in range(300)], tmp_path, "train")
        assert count_groups(tmp_path, "train") == 300

    def test_a_truncated_file_is_named(self, tmp_path):
        write_groups([pair()], tmp_path, "train")
        path = tmp_path / "train.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DatasetError, match=r"train\.parquet cannot be read"):
            next(read_groups(tmp_path, "train"))
        with pytest.raises(DatasetError, match=r"train\.parquet cannot be read"):
            count_groups(tmp_path, "train")

    def test_a_foreign_parquet_file_is_named(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"id": ["a"], "prompt": ["b"]}), tmp_path / "train.parquet")
        with pytest.raises(DatasetError, match=r"lacks the columns \['comparisons', 'images'"):
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
    def test_a_record_that_breaks_the_rules_is_named_once(self, tmp_path, column, value):
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
            ("texts", [1, 2], "a text must be text; received 1"),
            ("quality", ["good", "bad"], "could not convert string to float"),
            ("images", [{"bytes": "x", "path": None}] * 2, "an image must be bytes; received str"),
        ],
    )
    def test_a_column_of_another_type_is_named(self, tmp_path, column, value, message):
        import pyarrow as pa
        import pyarrow.parquet as pq

        write_groups([pair()], tmp_path, "train")
        table = pq.read_table(tmp_path / "train.parquet")
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array([value])), tmp_path / "train.parquet")
        with pytest.raises(RecordError, match=message):
            next(read_groups(tmp_path, "train"))

    def test_two_records_of_one_id_are_not_read(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        write_groups([pair()], tmp_path, "train")
        table = pq.read_table(tmp_path / "train.parquet")
        pq.write_table(pa.concat_tables([table, table]), tmp_path / "train.parquet")
        with pytest.raises(DatasetError, match=r"train\.parquet: two records have the id 'r1'"):
            list(read_groups(tmp_path, "train"))

    @pytest.mark.parametrize("bit", [0, 5])
    def test_a_flipped_bit_is_never_other_data(self, tmp_path, bit):
        records = [pair(id=str(n), prompt=f"ünder {n}", texts=("a", "b")) for n in range(3)]
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


class TestFingerprint:
    def test_every_field_counts(self):
        record = pair()
        variants = [
            record,
            pair(id="r2"),
            pair(prompt="a dog"),
            pair(images=(b"x", b"z")),
            pair(images=(b"x", b"y", None)),
            pair(images=(b"x", b"y", b"")),
            pair(comparisons=(Comparison.preferred(0, 1),)),
            pair(comparisons=()),
            pair(quality=(0.0, 1.0)),
            pair(tags={"skill": "counting"}),
            pair(texts=("a", None)),
        ]
        assert len({fingerprint([variant]) for variant in variants}) == len(variants)

    def test_order_counts_and_the_order_of_tags_does_not(self):
        a, b = pair(id="a"), pair(id="b")
        assert fingerprint([a, b]) != fingerprint([b, a])
        assert fingerprint([pair(tags={"a": "1", "b": "2"})]) == fingerprint(
            [pair(tags={"b": "2", "a": "1"})]
        )


class TestInfo:
    INFO = DatasetInfo(recipe="shapes", options={"seed": 1}, fingerprints={"train": "ab"})

    def test_what_is_written_is_read(self, tmp_path):
        write_info(tmp_path, self.INFO)
        assert read_info(tmp_path) == self.INFO

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "recipe": "shapes"}'])
    def test_what_is_malformed_is_named(self, tmp_path, text):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DatasetError, match=r"dataset\.json is absent or malformed"):
            read_info(tmp_path)

    def test_absent(self, tmp_path):
        with pytest.raises(DatasetError, match="build the dataset again"):
            read_info(tmp_path)

    def test_another_version_is_refused(self, tmp_path):
        write_info(tmp_path, self.INFO)
        path = tmp_path / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
        with pytest.raises(DatasetError, match="its format is version 2; this is 1"):
            read_info(tmp_path)
