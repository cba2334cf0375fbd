"""The benchmark of judges: its cases, one of them for real, and what it writes."""

import json
import re
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from data_recipes.recipe import Recipe
from data_recipes.shapes.recipe import RECIPE
from prefrm.bench import cases, judges, speed, training
from prefrm.bench.cases import CASES, JUDGES, LATE, SCALAR, SISTERS, Case
from prefrm.bench.disputed import disputed_accuracy
from prefrm.bench.judges import BenchError, bench_judges
from prefrm.bench.plain import PlainCollator, PlainJudge, single_pairs
from prefrm.bench.report import read_judges_report, write_judges_report
from prefrm.bench.speed import Speed, measure_speeds
from prefrm.bench.training import Row, one_thread_on_cpu, read_row, spec_of, train_case
from prefrm.eval import JudgedGroup
from prefrm.judge import Judge
from prefrm.media import decode
from prefrm.records import Comparison, PreferenceGroup, read_groups, read_info
from prefrm.winmatrix import WinMatrix

CASE = Case(part="shapes", kind=SCALAR)
SHAPES = {"train": 1500, "validation": 300, "test": 600, "group_size": 4, "flip": 0.1}
CYCLIC = {"train": 1200, "validation": 60, "test": 120, "group_size": 6, "flip": 0.0}
WORLDS = {"shapes": SHAPES, "cyclic": CYCLIC, "noise": SHAPES | {"flip": 0.3}, "kinds": SHAPES}


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
    kinds = [case for case in CASES if case.part == "kinds"]
    assert {(case.compared, case.seed) for case in kinds} == set(product(SISTERS, (0, 1, 2)))
    assert {case.flip for case in CASES if case.part != "cyclic"} == {0.0, 0.1, 0.2, 0.3}
    cyclic = [case for case in CASES if case.part == "cyclic"]
    assert {case.flip for case in cyclic} == {0.0}
    assert [case.seed for case in cyclic if case.kind == LATE] == [0, 1, 2]


@pytest.mark.slow
def test_a_case_is_trained_for_real_and_never_twice(tmp_path, monkeypatch, capsys):
    small_data(tmp_path / "runs")
    monkeypatch.setattr(judges, "CASES", (CASE,))
    monkeypatch.setattr(judges, "_build_data", lambda runs: None)
    monkeypatch.setattr(judges, "write_judges_report", every_part)
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


def every_part(*args, worlds, **options) -> None:
    """The report, of a benchmark with a single case."""
    write_judges_report(*args, worlds=dict.fromkeys(WORLDS, worlds["shapes"]), **options)


@pytest.fixture
def finished(tmp_path, monkeypatch) -> dict:
    """What was asked of a training of two steps on the CPU, of which there are a checkpoint and a row."""
    folder = tmp_path / CASE.name

    def finish(config, *, resume):
        (folder / "checkpoints").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run", finish)
    with pytest.raises(KeyboardInterrupt):
        train_case(CASE, tmp_path, steps=2, device="cpu")
    (folder / "row.json").write_text(json.dumps(asdict(row(steps=2))))
    asked: dict = json.loads((folder / "asked.json").read_text())
    return asked


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"device": "NVIDIA H100"},
        {"version": "0.0.1"},
        {"seed": 1},
        {"optim": {"steps": 3}},
        {"judge": {"template": "rate-v1"}},
    ],
)
def test_a_training_of_something_else_is_neither_counted_nor_continued(
    tmp_path, finished, change, monkeypatch
):
    """Of other settings, another device or another version, the folder goes, checkpoints and all."""
    folder = tmp_path / CASE.name
    nested = {key: finished[key] | value for key, value in change.items() if isinstance(value, dict)}
    (folder / "asked.json").write_text(json.dumps(finished | change | nested))
    kept = read_row(CASE, tmp_path, steps=2, device="cpu")
    assert kept == (None if change else row(steps=2))

    def look(config, *, resume):
        assert resume and (folder / "checkpoints").exists() == (not change)
        assert json.loads((folder / "asked.json").read_text()) == finished
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run", look)
    with pytest.raises(KeyboardInterrupt):
        train_case(CASE, tmp_path, steps=2, device="cpu")


def test_a_row_may_have_been_made_in_another_folder(tmp_path, finished):
    (tmp_path / CASE.name).rename(tmp_path / "moved")
    (tmp_path / "runs").mkdir()
    (tmp_path / "moved").rename(tmp_path / "runs" / CASE.name)
    assert read_row(CASE, tmp_path / "runs", steps=2, device="cpu") == row(steps=2)


def test_speeds_are_kept_for_their_device_and_measured_on_one_thread(tmp_path, monkeypatch):
    measured = []

    def measure(kind, data, device):
        measured.append(torch.get_num_threads())
        return Speed(judge=kind.name, prefrm=2.0, plain=1.0, steps=speed.TIMED_STEPS, device="CPU")

    monkeypatch.setattr(speed, "_speed", measure)
    target, threads = tmp_path / "speed.json", torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = measure_speeds(tmp_path, target, device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert measured == [1] * len(JUDGES)
    assert measure_speeds(tmp_path, target, device="cpu") == first
    assert len(measured) == len(JUDGES)
    target.write_text(target.read_text().replace("CPU", "NVIDIA H100"))
    assert measure_speeds(tmp_path, target, device="cpu") == first
    assert len(measured) == 2 * len(JUDGES)


def test_threads_are_those_of_the_device():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread_on_cpu("cpu"):
            assert torch.get_num_threads() == 1
        with one_thread_on_cpu("meta"):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_data_of_other_sizes_are_built_again_and_measured_again(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(judges, "CASES", (CASE,))
    monkeypatch.setattr(cases, "SIZE", {"train": 2, "validation": 2, "test": 2})
    monkeypatch.setattr(Recipe, "build", watched(Recipe.build, built))
    folder = tmp_path / CASE.name
    for test, again in ((2, True), (2, False), (3, True), (3, False)):
        folder.mkdir(exist_ok=True)
        before = len(built)
        cases.SIZE["test"] = test
        judges._build_data(tmp_path)
        assert read_info(tmp_path / "data" / CASE.data).options["test"] == test
        assert (len(built) > before) == again
        assert folder.exists() == (not again)


def watched(build, built):
    def building(*args, **options):
        built.append(options)
        return build(*args, **options)

    return building


@pytest.mark.parametrize(
    ("right", "accuracy"),
    [({"a", "b"}, {"colors": 1.0, "layout": 1.0}), ({"a"}, {"colors": 1.0, "layout": 0.0})],
)
def test_disputed_pairs_are_those_on_which_the_criteria_disagree(right, accuracy):
    """Of three candidates the criteria agree on two pairs and disagree on (1, 2)."""
    better = {"a": (Comparison.preferred(0, 1), Comparison.preferred(0, 2), Comparison.preferred(1, 2))}
    better["b"] = (*better["a"][:2], better["a"][2].flipped())
    criteria = {"a": "colors", "b": "layout"}
    groups = [
        PreferenceGroup(
            id=id, prompt="x", candidates=(b"1", b"2", b"3"), comparisons=better[id], criterion=criteria[id]
        )
        for id in better
    ]
    z = np.array([[0.0, 3, 3], [-3, 0, 1], [-3, -1, 0]])
    second = z.copy()
    second[1, 2], second[2, 1] = -1, 1
    matrices = [WinMatrix.from_order_logits(z), WinMatrix.from_order_logits(second if "b" in right else z)]
    judged = [JudgedGroup.of(group, matrix) for group, matrix in zip(groups, matrices, strict=True)]
    assert disputed_accuracy(judged, groups) == accuracy
    tied = [replace(group, comparisons=(Comparison.tie(1, 2),)) for group in groups[:1]]
    assert disputed_accuracy(judged[:1], tied) == {}


def test_a_case_that_fails_is_named_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "CASES", (CASE,))
    monkeypatch.setattr(judges, "_build_data", lambda runs: None)
    (tmp_path / "runs").mkdir()
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho it began; echo 'split train does not exist' >&2; exit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(failing))
    reason = r"it began \| split train does not exist"
    with pytest.raises(BenchError, match=f"{CASE.name} ended with status 1: {reason}"):
        bench_judges(tmp_path / "runs", tmp_path / "docs", steps=2, device="cpu", workers=1)
    assert read_row(CASE, tmp_path / "runs", steps=2, device="cpu") is None
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("kind", [kind for kind in JUDGES if kind == kind.plain], ids=lambda kind: kind.name)
def test_the_plain_trainer_has_the_same_loss(tmp_path, kind):
    data = small_data(tmp_path)
    torch.manual_seed(0)
    judge = Judge.from_base(spec_of(kind), "cpu")
    rows = single_pairs(read_groups(data, "train"), 7)
    assert len(rows) == 7
    processor = judge.processor
    groups = []
    for row in rows:
        images = [processor.prepare_image(decode(row[name])) for name in ("first", "second")]
        groups.append((processor.tree(row["prompt"], dict(enumerate(images))), [(0, 1)]))
    p = torch.tensor([row["p"] for row in rows])
    with torch.inference_mode():
        ours = judge.loss(judge(processor.collate(groups)), p)
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
        "steps": 300,
        "compared": "images",
        "pair_accuracy": 0.95,
        "low": 0.94,
        "high": 0.96,
        "disputed": {},
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
        row(part="kinds", compared="texts", pair_accuracy=0.94),
        row(part="kinds", compared="criteria", disputed={"colors": 0.93, "layout": 0.91}),
    ]
    speeds = [
        Speed(judge=name, prefrm=90.0, plain=30.0, steps=3, device="CPU")
        for name in ("verdict-joint", "scalar")
    ]
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "notes.md").write_text("Three other rates were tried.\n")
    write_judges_report(rows, speeds, tmp_path, steps=300, worlds=WORLDS)
    text = re.sub(" +", " ", (tmp_path / "judges.md").read_text())
    assert "| verdict-joint | 0.960 (0.950 to 0.970) |" in text
    assert "| verdict-joint | 90 | 30 | 3.00 |" in text
    assert "| 10% | 0.950 |" in text and "| 30% | 0.850 |" in text
    assert "| scalar | 0 | 0.660 |" in text
    assert "| texts | 1 | 0.940 (0.940 to 0.940) | - | - |" in text
    assert (
        "| criteria | 1 | 0.950 (0.950 to 0.950) | 0.930 (0.930 to 0.930) | 0.910 (0.910 to 0.910) |" in text
    )
    assert read_judges_report(tmp_path) == (rows, [replace(one, steps=3) for one in speeds])
    assert re.findall(r"Trained on .*? measured on \S+", " ".join(text.split())) == [
        "Trained on 1,500 groups of 4, of whose labels 10% are flipped; "
        "calibrated on 300 groups and measured on 600.",
        "Trained on 1,200 groups of 6, none of whose labels is flipped; "
        "calibrated on 60 groups and measured on 120.",
        "Trained on 1,500 groups of 4, of whose labels the share in the table is flipped; "
        "calibrated on 300 groups and measured on 600.",
        "Trained on 1,500 groups of 4, of whose labels 10% are flipped; "
        "calibrated on 300 groups and measured on 600.",
    ]
    assert "in one process on one thread." in text
    assert text.endswith("## Notes\n\nThree other rates were tried.\n")
    on_gpu = [replace(one, device="NVIDIA H100") for one in speeds]
    write_judges_report(rows, on_gpu, tmp_path, steps=300, worlds=WORLDS)
    assert "one thread" not in (tmp_path / "judges.md").read_text()
    entries = json.loads((tmp_path / "judges.json").read_text())
    # Speed was measured on the shapes world.
    assert [entry["plain_comparisons_per_second"] for entry in entries] == [30.0] * 3 + [
        None,
        30.0,
        None,
        None,
    ]
    for picture in ("accuracy.png", "label_noise.png"):
        assert (tmp_path / "judges" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"judges/{picture}" in text
