"""The benchmark of the server: its load against a real server, and what it makes of what came of it."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prefrm.errors import ConfigError, ScoringError
from prefrm.winmatrix import FakeScorer
from serving.bench.benchmark import read_settings
from serving.bench.load import Load, Outcome
from serving.bench.overload import measure_overload
from serving.bench.processes import LoadProcess, mlserver, prefrm_server
from serving.bench.report import Overload, ServerReport, ServerRow, percentile, write_server_report
from serving.bench.requests import small_groups, write_requests
from serving.bench.rounds import added, answered
from serving.bench.scorers import build_scorer
from serving.bench.soak import _window


@pytest.fixture(scope="module")
def small():
    """A server of the two-layer model with room for few requests, in a process of its own."""
    with prefrm_server("two-layers", threads=1) as server:
        yield server


def test_a_load_is_answered_right_over_both_wires(small, tmp_path):
    write_requests(small_groups(3), build_scorer("two-layers"), tmp_path)
    with LoadProcess(tmp_path) as load:
        for wire, target in (("grpc", small.grpc), ("http", small.http)):
            outcome = load.put(Load(target=target, wire=wire, concurrency=2, count=7))
            assert len(answered(outcome)) == 7
            assert 0 < max(outcome.latencies_ms["OK"]) / 1e3 < outcome.seconds
        steady = load.put(Load(target=small.grpc, rate=50, seconds=0.5))
        assert 20 <= len(answered(steady)) <= 26
    assert small.resident_mb > 10 and small.cpu_seconds > 0


def test_a_wrong_answer_is_seen(small, tmp_path):
    write_requests(small_groups(2), FakeScorer(lambda prompt, image: len(image) / 1e3), tmp_path)
    with LoadProcess(tmp_path) as load:
        outcome = load.put(Load(target=small.grpc, count=4))
    assert set(outcome.latencies_ms) == {"WRONG"}
    with pytest.raises(ScoringError, match="'WRONG': 4"):
        answered(outcome)


def test_an_overload_counts_answers_refusals_and_the_lost():
    class Server:
        grpc, resident_mb = "nowhere", 100.0

    class Loads:
        def put(self, load: Load) -> Outcome:
            if load.rate is None:
                return Outcome(seconds=2.0, latencies_ms={"OK": [1.0] * 20})
            assert load.rate == 100
            refusals = [float(n) for n in range(100)]
            ended = {"OK": [5.0] * 45, "RESOURCE_EXHAUSTED": refusals, "INTERNAL": [1.0], "WRONG": [1.0]}
            return Outcome(seconds=5.0, latencies_ms=ended)

    found = measure_overload(Loads(), Server(), seconds=4.0, groups=20)
    assert (found.peak_rps, found.accepted_rps, found.of_peak) == (10, 9, 0.9)
    assert (found.refused, found.refusal_p99_ms, found.lost) == (100, 99, 2)


def test_what_a_wire_adds_is_paired_group_by_group():
    # The median of the differences is 1, that of the wire less that of the engine 11.
    ways = {"engine": [10.0, 30.0, 20.0], "grpc": [11.0, 31.0, 90.0]}
    assert added(ways["engine"], ways) == {"grpc": [1.0, 1.0, 70.0]}


def test_a_report_has_the_rows_and_the_overload(tmp_path):
    row = ServerRow(
        server="prefrm grpc: judge", concurrency=8, rps=12.5, p50_ms=80, p99_ms=99, of_engine=0.97
    )
    overload = Overload(
        seconds=60,
        offered_rps=100,
        peak_rps=10,
        accepted_rps=9.5,
        of_peak=0.95,
        refused=5430,
        refusal_p99_ms=7,
        accepted_p99_ms=6000,
        lost=0,
        resident_mb=(500, 501),
    )
    report = ServerReport(
        device="a processor",
        rounds=7,
        threads=2,
        image_tokens=16,
        rows=(row,),
        added_ms={"grpc": 1.25, "http": 2.5},
        overload=overload,
    )
    write_server_report(report, tmp_path)
    read = json.loads((tmp_path / "server.json").read_text())
    assert set(read) == {"rows", "added_ms", "overload"}
    assert read["added_ms"] == {"grpc": 1.25, "http": 2.5}
    (issued,) = read["rows"]
    assert list(issued) == ["server", "concurrency", "rps", "p50_ms", "p99_ms", "of_engine", "of_mlserver"]
    assert issued["of_engine"] == 0.97 and issued["of_mlserver"] is None
    assert read["overload"]["of_peak"] == 0.95
    table = (tmp_path / "serving" / "table.md").read_text()
    assert "| prefrm grpc: judge |       8 |            12.5 |" in table and "0.95 of that" in table
    assert "takes 1.25 ms over grpc and 2.5 ms over http longer than" in table


@pytest.mark.parametrize(("share", "value"), [(0.5, 3.0), (0.99, 4.0), (0.0, 1.0)])
def test_a_percentile_is_one_of_the_values(share, value):
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == value


class Fixed:
    """A server, and loads that end as they are told."""

    grpc, resident_mb = "nowhere", 100.0

    def __init__(self, steady: dict[str, list[float]], overload: dict[str, list[float]]) -> None:
        self.steady, self.overload = steady, overload

    def put(self, load: Load) -> Outcome:
        return Outcome(seconds=2.0, latencies_ms=self.steady if load.rate is None else self.overload)


@pytest.mark.parametrize(
    ("steady", "overload", "reason"),
    [
        ({"OK": [1.0]}, {"OK": [1.0] * 7}, r"refused nothing of 5 requests a second .*\{'OK': 7\}"),
        ({"OK": [1.0]}, {}, "refused nothing"),
        ({"OK": [1.0], "WRONG": [1.0]}, {"RESOURCE_EXHAUSTED": [1.0]}, "'WRONG': 1"),
        ({"UNAVAILABLE": [1.0]}, {"RESOURCE_EXHAUSTED": [1.0]}, "'UNAVAILABLE': 1"),
    ],
)
def test_an_overload_that_measured_nothing_is_an_error(steady, overload, reason):
    fixed = Fixed(steady, overload)
    with pytest.raises(ScoringError, match=reason):
        measure_overload(fixed, fixed, seconds=4.0, groups=20)


def test_an_overload_in_which_nothing_was_answered_has_no_latency_of_answers():
    fixed = Fixed({"OK": [1.0]}, {"RESOURCE_EXHAUSTED": [3.0]})
    found = measure_overload(fixed, fixed, seconds=4.0, groups=20)
    assert (found.accepted_p99_ms, found.refusal_p99_ms, found.of_peak) == (None, 3.0, 0.0)


def test_a_window_of_a_soak_without_an_answer_is_an_error():
    assert _window(Outcome(seconds=2.0, latencies_ms={"OK": [1.0, 5.0, 3.0]})) == (1.5, 3.0, 5.0)
    with pytest.raises(ScoringError, match=r"no right answer in 2\.0 s .*'UNAVAILABLE': 1"):
        _window(Outcome(seconds=2.0, latencies_ms={"UNAVAILABLE": [1.0]}))


def test_an_interrupt_leaves_the_load_to_the_end_of_its_input(tmp_path):
    write_requests(small_groups(1), build_scorer("two-layers"), tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "serving.bench.load", str(tmp_path), "1e-6"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # It answers, so it has started.
        process.stdin.write(json.dumps({"target": "127.0.0.1:1", "count": 1}) + "\n")
        process.stdin.flush()
        assert "UNAVAILABLE" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_an_interrupt_waits_for_no_load(default_signals, tmp_path):
    write_requests(small_groups(1), build_scorer("two-layers"), tmp_path)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LoadProcess(tmp_path) as load:
        load.put(Load(target="127.0.0.1:1", count=1))
        timer = threading.Timer(0.2, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
        timer.start()
        load.put(Load(target="127.0.0.1:1", seconds=50))
    timer.join()
    assert time.monotonic() - started < 40


def test_an_interpreter_without_mlserver_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot import mlserver"):
        read_settings(mlserver=tmp_path / "python")
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho it broke >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(ConfigError, match="did not start: it broke"), mlserver(Path(script)):
        pass
