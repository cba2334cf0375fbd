"""`prefrm bench published`: what it measures, what stands beside it, and what it is not compared with."""

import json
from contextlib import nullcontext

import pytest

from prefrm.bench.published import bench_published, published_table
from prefrm.bundle import ImportRecord, write_bundle
from prefrm.cli import run
from prefrm.engine import Engine
from prefrm.eval import PUBLISHED, evaluate
from prefrm.imports import PUBLISHED as IMPORTS
from prefrm.records import Comparison, DatasetInfo, PreferenceGroup, read_groups, write_groups, write_info
from prefrm.winmatrix import FakeScorer, WinMatrix


@pytest.fixture
def dataset(png, tmp_path):
    groups = [
        PreferenceGroup(
            id=f"g{n}",
            prompt=f"prompt {n}",
            candidates=(png(n), png(n + 10), png(n + 20)),
            comparisons=(Comparison.preferred(0, 1), Comparison.preferred(2, 1)),
        )
        for n in range(4)
    ]
    write_groups(groups, tmp_path / "data", "test")
    write_info(tmp_path / "data", DatasetInfo(recipe="hpdv3", options={}, fingerprints={}))
    return tmp_path / "data"


@pytest.fixture
def judges(judge, tmp_path):
    origin = ImportRecord(judge="pickscore", source="x", revision=None, licence="MIT", sha256={})
    for name, record in (("a", origin), ("b", None)):
        write_bundle(
            tmp_path / "judges" / name,
            judge,
            calibration=None,
            data_fingerprint="",
            metrics={},
            card="# A judge\n",
            origin=record,
        )
    return tmp_path / "judges"


def test_every_imported_judge_is_measured_beside_what_was_published(dataset, judges, capsys):
    command = ["bench", "published", str(dataset), "--judges", str(judges)]
    assert run([*command, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    expected = evaluate(Engine.from_bundle(judges / "a", device="cpu"), read_groups(dataset, "test"))
    assert (first["scorer"], first["judge"]) == (str(judges / "a"), "pickscore")
    assert first["accuracy"] == expected.metrics.accuracy.value
    assert (first["pairs"], first["unjudged"], first["candidates"]) == (8, 0, 3)
    assert first["measured"] == {"hpdv3": PUBLISHED["hpdv3"].accuracy(expected.judged).value}
    assert first["published"] == {"hpdv3": 0.656}
    assert 0 < first["seconds"] < 60
    # The other one was not imported: nothing was published of it.
    assert (second["judge"], second["published"]) == ("", {})
    assert second["measured"] == first["measured"]
    assert run([*command, "--groups", "2"]) == 0
    table = capsys.readouterr().out
    # Two groups are not the published test split.
    assert "hpdv3" not in table.splitlines()[0] and f"pickscore ({judges / 'a'})" in table
    assert run([*command, "--groups", "2", "--definition", "genai_bench"]) == 0
    assert "genai_bench" in capsys.readouterr().out.splitlines()[0]


def test_a_scorer_that_judges_nothing_says_why(dataset):
    class Blind(FakeScorer):
        def score(self, groups):
            return [WinMatrix.missing(["it wants\na source"] * len(group.candidates)) for group in groups]

    scorers = {"grpc://a": FakeScorer(lambda prompt, image: 0.0), "grpc://b": Blind(None)}
    rows = bench_published(list(scorers), dataset, "test", lambda target: nullcontext(scorers[target]))
    assert [row.reason for row in rows] == ["", "it wants\na source"]
    table = published_table(rows)
    assert "nan" not in table and "| grpc://a |" in table
    line = "grpc://b: nothing was judged: it wants a source"
    assert table.splitlines()[-2:] == ["", line]
    assert published_table(rows[1:]) == f"{line}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}", "--judges", "nowhere"], "nowhere has no bundle; import a judge with `prefrm import"),
        (["{data}", "nowhere"], "nowhere is not a bundle"),
        (["{data}", "--split", "other"], "other.parquet does not exist"),
        (["{data}", "--definition", "pickapic"], "pickapic needs a tie threshold"),
        (["{data}", "--ca", "ca.pem"], "--ca: for a judge behind a URL"),
    ],
)
def test_mistakes_are_one_line(dataset, judges, arguments, message, capsys):
    given = [one.format(data=dataset) for one in arguments]
    if "--judges" not in given:
        given += ["--judges", str(judges)]
    assert run(["bench", "published", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("prefrm: ") and error.count("\n") == 1 and message in error


def test_every_column_is_that_of_a_judge():
    names = {name for definition in PUBLISHED.values() for name in definition.judges}
    assert {judge.column for judge in IMPORTS.values() if judge.column} <= names
    assert published_table([]).startswith("| judge")
