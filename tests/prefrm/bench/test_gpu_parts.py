"""The parts of the benchmark of a GPU, on a tiny model and a CPU."""

import numpy as np
import pytest
import torch
from torch import nn

from prefrm.bench import meters
from prefrm.bench.gpu import __main__ as command
from prefrm.bench.gpu import differences, engine, machine, training
from prefrm.bench.gpu.differences import log_odds_difference
from prefrm.bench.gpu.failures import raise_for
from prefrm.bench.gpu.marked_tests import read_report
from prefrm.bench.gpu.models import SHAPES, quantize_in_place, weights_gib
from prefrm.bench.gpu.parts import TINY_PARTS
from prefrm.bench.gpu.results import read_result
from prefrm.bench.gpu.rows import EngineCell
from prefrm.bench.meters import seconds_in
from prefrm.bench.random_model import build_backbone
from prefrm.errors import OutOfMemoryError, ScoringError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def groups() -> engine._Groups:
    return engine._Groups("cpu", "tiny", 25, 8)


@pytest.fixture
def timed_cells(groups, monkeypatch) -> list[tuple[str, int, int]]:
    """Every turn that is taken, none of which scores anything: each comparison takes a tenth of a second."""
    turns = []

    def turn(cell: EngineCell) -> tuple[float, float]:
        turns.append((cell.method, cell.k, cell.timed_pairs))
        seconds = cell.k * (cell.k - 1) / 10
        return seconds + 0.01 * cell.k, seconds

    for name in ("_plain", "_engine"):
        monkeypatch.setattr(groups, name, turn)
    return turns


def cell(groups, method: str, k: int, before=(), **changes) -> EngineCell:
    options = {"rounds": 2, "sample": 20, "cell_s": 4.0} | changes
    return groups.cell(method, k, list(before), **options)


def test_a_group_that_would_take_too_long_is_scaled_by_operations(groups, timed_cells):
    two = cell(groups, "joint", 2)
    assert (two.seconds, two.decoded_seconds) == (pytest.approx(0.22), pytest.approx(0.2))
    assert timed_cells == [("joint", 2, 2)] * 2 and two.estimated_from is None and two.peak_mb is not None
    times = groups._operations("joint", 8) / groups._operations("joint", 2)
    timed = cell(groups, "joint", 8, [two], cell_s=1000.0)
    assert timed.estimated_from is None and len(timed_cells) == 4
    eight = cell(groups, "joint", 8, [two], cell_s=0.3 * times / 2)
    assert eight.estimated_from == 2 and len(timed_cells) == 4 and eight.peak_mb is None
    assert eight.decoded_seconds == pytest.approx(0.2 * times) and times > 5
    # Four times as many images are decoded.
    assert eight.seconds == pytest.approx(eight.decoded_seconds + 4 * 0.02)
    assert eight.tflops == two.tflops
    # An estimate is never made from an estimate.
    assert cell(groups, "joint", 16, [two, eight], cell_s=1.0).estimated_from == 2


def test_the_plain_method_is_timed_on_its_sample_once(groups, timed_cells, monkeypatch):
    monkeypatch.setattr(groups.plain, "batch_size", 4)
    four = cell(groups, "plain", 4)
    eight = cell(groups, "plain", 8, [four])
    sixteen = cell(groups, "plain", 16, [four, eight])
    assert [one.timed_pairs for one in (four, eight, sixteen)] == [12, 20, 20]
    assert [one.estimated_from for one in (four, eight, sixteen)] == [None, None, 8]
    assert set(timed_cells) == {("plain", 4, 12), ("plain", 8, 20)}


def test_what_does_not_fit_is_a_reason_and_larger_groups_are_not_tried(groups, timed_cells, monkeypatch):
    def fail(one: EngineCell) -> tuple[float, float]:
        timed_cells.append((one.method, one.k, one.timed_pairs))
        raise OutOfMemoryError("too small")

    monkeypatch.setattr(groups, "_engine", fail)
    two = cell(groups, "late", 2)
    four = cell(groups, "late", 4, [two])
    assert two.reason == four.reason == "out of memory" and two.seconds is None
    assert len(timed_cells) == 1

    raise_for([two.reason, "", four.reason])


def test_a_failure_is_a_reason_and_fails_the_part_in_the_end(groups, monkeypatch, capsys):
    def break_down(one: EngineCell) -> tuple[float, float]:
        raise RuntimeError("no kernel\nand so on")

    monkeypatch.setattr(groups, "_engine", break_down)
    found = cell(groups, "late", 2)
    assert found.reason == "RuntimeError: no kernel" and "in break_down" in capsys.readouterr().err
    with pytest.raises(ScoringError, match=r"rows failed: RuntimeError: no kernel$"):
        raise_for(["", found.reason, "out of memory", found.reason])


@pytest.mark.parametrize("adapter", [None, {"rank": 4, "alpha": 8, "dropout": 0.05}], ids=["full", "lora"])
def test_a_plain_step_reads_the_same_comparisons_and_more_tokens(adapter):
    options = {"rows": [["plain", 2, 2], ["joint", 2, 2]], "quantize": False, "steps": 1, "workers": 0}
    *_, found = training.measure("cpu", shape="tiny", image_tokens=25, adapter=adapter, **options)
    plain, joint = found["rows"]
    assert plain["comparisons"] == joint["comparisons"] == 4
    # The prompt of a group is read once for both orders: here that saves 52 tokens in each of two groups.
    assert plain["tokens"] - joint["tokens"] == 2 * 52
    assert plain["seconds"] > 0 < joint["seconds"]
    assert (found["trainable"] < 100_000) == (adapter is not None)


def test_a_step_that_does_not_fit_leaves_the_other_rows(monkeypatch):
    learner = training._Learner("cpu", "tiny", 25, adapter=None, quantize=False)
    monkeypatch.setattr(training, "fit", lambda *args, **kwargs: torch.empty(2**60))
    row = learner.row("late", 3, 2, steps=2, workers=0)
    assert row.reason == "out of memory" and row.comparisons == 12 and row.seconds is None


def test_layers_in_four_bits_are_those_that_quantize_stores():
    backbone = build_backbone(SHAPES["tiny"], device=CPU, dtype=torch.float32)
    before = weights_gib(backbone)
    quantize_in_place(backbone)
    kinds = {name: type(layer).__name__ for name, layer in backbone.named_modules() if "proj" in name}
    stored = {name for name, kind in kinds.items() if kind == "Linear4bit"}
    assert stored == {name for name in kinds if ".language_model.layers." in name} and len(stored) == 2 * 7
    assert weights_gib(backbone) < before
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        assert bool(backbone(input_ids=ids).logits.isfinite().all())


def test_the_groups_of_a_step_have_all_their_comparisons():
    groups = training.NoiseGroups(4, 3, 28)
    assert list(groups.order(7, skip=1)) == [1, 2] and len(groups) == 3
    group = groups.fetch(2)
    assert len(group.candidates) == 4 and len(group.comparisons) == 6
    assert len({image for one in groups.groups for image in one.candidates}) == 12


def test_a_difference_in_log_odds_is_the_largest_of_all_pairs():
    one = np.array([[0.5, 0.7], [0.3, 0.5]], dtype=np.float32)
    other = np.array([[0.5, 0.8], [0.2, 0.5]], dtype=np.float32)
    assert log_odds_difference(one, one) == 0
    assert log_odds_difference(one, other) == pytest.approx(np.log(4) - np.log(7 / 3), abs=1e-5)
    assert log_odds_difference(one, np.full((2, 2), np.nan, dtype=np.float32)) == np.inf


def test_on_one_device_nothing_differs():
    options = {"methods": ["late", "scalar"], "tiny": ("tiny", 25), "small": ("tiny", 25)}
    *_, found = differences.measure("cpu", **options)
    assert len(found["rows"]) == 8
    assert all(row["difference"] == 0 and row["equal"] for row in found["rows"])


def test_a_report_of_tests_is_counted_and_failures_are_named():
    report = """<testsuites><testsuite>
      <testcase classname="tests.a" name="test_one"/>
      <testcase classname="tests.a" name="test_two"><failure message="assert 1 == 2&#10;more"/></testcase>
      <testcase classname="tests.a" name="test_three"><skipped message="no"/></testcase>
      <testcase classname="" name="tests.b"><error message="collection failure"/></testcase>
    </testsuite></testsuites>"""
    assert read_report(report) == {
        "passed": 1,
        "failed": 2,
        "skipped": 1,
        "failures": [
            {"test": "tests.a.test_two", "message": "assert 1 == 2"},
            {"test": "tests.b", "message": "collection failure"},
        ],
    }


def test_the_machine_without_a_card_has_no_peak(monkeypatch):
    monkeypatch.setattr(meters, "SIDES", {"cpu": 64})
    (found,) = machine.measure("cpu")
    assert not found["accelerator"] and found["peak_tflops"] is None and found["product_tflops"] > 0
    assert {"prefrm", "torch", "transformers"} <= found["versions"].keys()


def test_seconds_in_a_module_are_those_of_its_forward_passes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: now[0])

    class Waits(nn.Module):
        def forward(self, seconds: float) -> None:
            now[0] += seconds

    module = Waits()

    def call() -> None:
        module(2.0)
        now[0] += 50
        module(3.0)

    assert seconds_in(module, call, CPU) == 5.0
    module(1.0)
    assert seconds_in(module, lambda: None, CPU) == 0.0


@pytest.mark.slow
def test_every_kind_of_part_runs_on_a_cpu(tmp_path, monkeypatch):
    """But for those of the tests and of the server: what they run is tested elsewhere, and takes long."""
    wanted = ["engine", "train-tiny-qlora"]
    arguments = ["--tiny", "--device", "cpu", "--out", f"{tmp_path}/out", "--runs", f"{tmp_path}/runs"]
    assert command.main([*arguments, "--only", *wanted]) == 0
    page = (tmp_path / "out" / "gpu-tiny.md").read_text()
    for part in TINY_PARTS:
        log = tmp_path / "runs" / "tiny" / f"{part.name}.log"
        assert log.is_file() == (part.name == "train-tiny-qlora" or part.kind == "engine")
    lines = [[x.strip() for x in line.split("|")[1:-1]] for line in page.splitlines() if line[:1] == "|"]
    for method in ("plain", "joint", "late", "scalar"):
        assert any(line[:2] == [method, "4"] and line[2] != "-" for line in lines)
    assert sum(line[:2] == ["joint", "2"] and len(line) == 11 for line in lines) == 1
    assert "**server**: not run" in page and read_result(tmp_path / "none.json", {}) is None
