"""The benchmark of judges: its cases, one of them for real, and what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_recipes.shapes.recipe import RECIPE
from prefrm.bench import judges
from prefrm.bench.cases import CASES, JUDGES, SCALAR, Case
from prefrm.bench.judges import BenchError, bench_judges
from prefrm.bench.plain import PlainCollator, PlainJudge, single_pairs
from prefrm.bench.report import write_judges_report
from prefrm.bench.speed import Speed
from prefrm.bench.training import Row, read_row, spec_of
from prefrm.judge import Judge
from prefrm.media import decode

CASE = Case(part="shapes", kind=SCALAR)


def small_data(runs: Path) -> Path:
    folder = runs / "data" / CASE.data
    RECIPE.build(folder, seed=0, train=12, validation=6, test=6)
    return folder


def test_every_case_has_a_folder_of_its_own_and_every_judge_three_seeds():
    assert len({case.name for case in CASES}) == len(CASES)
    seeds = {
        kind: {case.seed for case in CASES if case.part == "shapes" and case.kind == kind} for kind in JUDGES
    }
    assert all(found == {0, 1, 2} for found in seeds.values())
    assert {case.flip for case in CASES if case.part != "cyclic"} == {0.0, 0.1, 0.2, 0.3}
    assert {case.flip for case in CASES if case.part == "cyclic"} == {0.0}


@pytest.mark.parametrize("kind", JUDGES, ids=lambda kind: kind.name)
def test_the_kinds_of_the_cases_are_those_of_their_judges(kind):
    assert kind.reads_groups == spec_of(kind).reads_groups


@pytest.mark.slow
def test_a_case_is_trained_for_real_and_never_twice(tmp_path, monkeypatch, capsys):
    small_data(tmp_path / "runs")
    monkeypatch.setattr(judges, "CASES", (CASE,))
    monkeypatch.setattr(judges, "measure_speeds", lambda *args, **kwargs: [])
    rows = bench_judges(tmp_path / "runs", tmp_path / "docs", steps=2, device="cpu", workers=1)
    (row,) = rows
    assert row.judge == "scalar" and row.attention is None and row.order_gap is None
    assert 0 <= row.pair_accuracy <= 1 and row.seconds > 0 and row.peak_mb > 100
    (entry,) = json.loads((tmp_path / "docs" / "judges.json").read_text())
    assert entry["pair_accuracy"] == row.pair_accuracy and entry["seed"] == 0
    made = (tmp_path / "runs" / CASE.name / "row.json").stat().st_mtime_ns
    assert bench_judges(tmp_path / "runs", tmp_path / "docs", steps=2, device="cpu", workers=1) == rows
    assert (tmp_path / "runs" / CASE.name / "row.json").stat().st_mtime_ns == made
    assert capsys.readouterr().out.count("pair accuracy") == 1


def test_a_case_that_fails_is_named_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "CASES", (CASE,))
    monkeypatch.setattr(judges, "_build_data", lambda runs: None)
    (tmp_path / "runs").mkdir()
    with pytest.raises(BenchError, match=f"{CASE.name} ended with status 1: .*does not exist"):
        bench_judges(tmp_path / "runs", tmp_path / "docs", steps=2, device="cpu", workers=1)
    assert read_row(tmp_path / "runs" / CASE.name) is None
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    "kind", [kind for kind in JUDGES if kind.quantize is None], ids=lambda kind: kind.name
)
def test_the_plain_trainer_has_the_same_loss(tmp_path, kind):
    data = small_data(tmp_path)
    torch.manual_seed(0)
    judge = Judge.from_base(spec_of(replace(kind, attention="joint")), "cpu")
    rows = list(single_pairs(data, "train", 7))
    assert len(rows) == 7
    processor = judge.processor
    groups = []
    for row in rows:
        images = [processor.prepare_image(decode(row[name])) for name in ("first", "second")]
        groups.append(processor.prepare_group(row["prompt"], images, [(0, 1)]))
    p = torch.tensor([row["p"] for row in rows])
    with torch.inference_mode():
        ours = judge.loss(judge(processor.collate_groups(groups)), p)
        plain = PlainJudge(judge)(**PlainCollator(judge)(rows))["loss"]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


def row(**changes) -> Row:
    values = {
        "part": "shapes",
        "judge": "verdict",
        "attention": "joint",
        "quantised": None,
        "flip": 0.1,
        "seed": 0,
        "pair_accuracy": 0.95,
        "low": 0.94,
        "high": 0.96,
        "ece": 0.01,
        "order_gap": 0.1,
        "seconds": 100.0,
        "peak_mb": 900.0,
        "device": "CPU",
    }
    return Row(**(values | changes))


def test_the_report_shows_every_table(tmp_path):
    rows = [
        row(),
        row(seed=1, pair_accuracy=0.97),
        row(judge="scalar", attention=None, order_gap=None, pair_accuracy=0.9),
        row(part="cyclic", judge="scalar", attention=None, order_gap=None, pair_accuracy=0.66, flip=0.0),
        row(part="noise", flip=0.3, pair_accuracy=0.85),
    ]
    write_judges_report(rows, [Speed(judge="verdict-joint", prefrm=90.0, plain=30.0)], tmp_path, steps=300)
    text = (tmp_path / "judges.md").read_text()
    assert "| verdict-joint | 0.960 (0.950 to 0.970) |" in text
    assert "| verdict-joint | 90 | 30 | 3.00 |" in text
    assert "| 10% | 0.950 |" in text and "| 30% | 0.850 |" in text
    assert "| scalar | 0.660 |" in text
    entries = json.loads((tmp_path / "judges.json").read_text())
    assert len(entries) == 5 and entries[0]["plain_comparisons_per_second"] == 30.0
    for picture in ("accuracy.png", "label_noise.png"):
        assert (tmp_path / "judges" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"judges/{picture}" in text
