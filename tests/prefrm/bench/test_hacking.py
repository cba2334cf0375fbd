"""The study of reward hacking: its scorers, what its rows say, its page, and a tiny study for real."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from prefrm.bench import hacking_judges
from prefrm.bench.hacking import bench_hacking, report_hacking
from prefrm.bench.hacking_cases import FULL, JUDGES, QUICK, REWARDS, Study
from prefrm.bench.hacking_judges import JudgeRow, LastAnswer, likeness, open_judges
from prefrm.bench.hacking_report import write_hacking_report
from prefrm.bench.hacking_rows import Point, Row, mean_interval, paired, turn
from prefrm.bench.judges import BenchError
from prefrm.bench.kept import seconds_spent, spending
from prefrm.errors import ConfigError
from prefrm.winmatrix import FakeScorer, Group, TemperatureScaling

GROUP = Group(prompt="a red circle", candidates=(b"a", b"bb", b"cccc"))
TINY = replace(
    QUICK,
    rewards=REWARDS[:1],
    groups=(6, 6, 6),
    judge_steps=1,
    judge_batch=2,
    iterations=2,
    prompts=1,
    group=2,
    steps=2,
    every=1,
    held_out=2,
)


def test_one_seed_of_everything_runs_first_and_every_cell_has_a_folder_of_its_own() -> None:
    assert len({cell.name for cell in FULL.cells}) == len(FULL.cells) == 5 * 3 * 3
    assert [cell.seed for cell in FULL.cells] == [0] * 15 + [1] * 15 + [2] * 15
    assert set(FULL.lr) == set(FULL.methods)


def test_the_second_judge_learns_from_labels_that_no_other_judge_has() -> None:
    second = JUDGES["second"]
    others = [case for name, case in JUDGES.items() if name != "second"]
    assert {case.labels for case in others} == {0} and second.labels != 0
    assert all(case.kind.head != second.kind.head and case.seed != second.seed for case in others)
    assert not any("second" in reward.judges for reward in REWARDS)


def length(prompt: str, image: bytes) -> float:
    return float(len(image))


def test_the_last_answer_is_remembered_and_no_other() -> None:
    calls: list[bytes] = []

    def counted(prompt: str, image: bytes) -> float:
        calls.append(image)
        return length(prompt, image)

    scorer, other = LastAnswer(FakeScorer(counted)), replace(GROUP, prompt="a blue star")
    first = scorer.score([GROUP])
    assert scorer.score([GROUP])[0] is first[0] and len(calls) == 3
    scorer.score([other])
    scorer.score([GROUP])
    assert len(calls) == 9


def fake_judges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Judges of an image's length, of which the verdict likes short ones; returns the loaded names."""
    loaded: list[str] = []

    def load(folder: Path, *given: str) -> SimpleNamespace:
        name = folder.parent.name
        loaded.append(name)
        sign = -1 if name == "verdict" else 1
        calibration = SimpleNamespace(map=TemperatureScaling(temperature=0.25))
        judge = FakeScorer(lambda prompt, image: sign * len(image))
        return SimpleNamespace(judge=judge, manifest=SimpleNamespace(calibration=calibration))

    monkeypatch.setattr(hacking_judges, "load_bundle", load)
    monkeypatch.setattr(hacking_judges, "Engine", lambda judge: judge)
    return loaded


def test_judges_are_opened_once_and_calibrated_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fake_judges(monkeypatch)
    opened = open_judges(tmp_path)

    def log_odds(name: str) -> float:
        """Of the longest over the shortest image, whose lengths differ by 3."""
        with opened(name) as scorer:
            (matrix,) = scorer.score([GROUP])
        return float(np.log(matrix.p[2, 0] / matrix.p[0, 2]))

    assert log_odds("scalar utility") == pytest.approx(3, rel=1e-4)
    assert log_odds("scalar utility (calibrated)") == pytest.approx(12, rel=1e-2)
    assert log_odds("verdict win rate") == pytest.approx(-3, rel=1e-4)
    assert log_odds("verdict calibrated") == pytest.approx(-12, rel=1e-2)
    assert log_odds("ensemble") == pytest.approx(0, abs=1e-4)
    assert log_odds("second") == pytest.approx(3, rel=1e-4)
    assert sorted(loaded) == ["scalar", "second", "verdict"]
    with pytest.raises(ConfigError, match="a scorer of the study is one of"), opened("third"):
        pass


def test_likeness_is_the_correlation_within_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_judges(monkeypatch)
    # Two images each, so all correlations are 1 or -1; the second group says nothing.
    pairs = [replace(GROUP, candidates=pair) for pair in ((b"a", b"bbb"), (b"a", b"b"), (b"dd", b"c"))]
    monkeypatch.setattr(hacking_judges, "read_groups", lambda folder, split: iter(pairs))
    alike = likeness(QUICK, tmp_path)
    expected = {"scalar utility": 1, "verdict win rate": -1, "scalar hard win rate": 1}
    assert {name: alike[name] for name in expected} == pytest.approx(expected)
    assert set(alike) == {*expected, "scalar win rate calibrated", "verdict hard win rate"}


def row(reward: str = "scalar utility", seed: int = 0, oracle: tuple[float, ...] = (0.5, 0.6, 0.4)) -> Row:
    """Of a training whose reward climbs by 0.1 between evaluations, and the second judge by half of that."""
    points = [
        Point(iteration=4 * n, judge=0.5 + 0.1 * n, second=0.5 + 0.05 * n, oracle=value, diversity=0.2)
        for n, value in enumerate(oracle)
    ]
    return Row(reward=reward, method="nft", seed=seed, points=tuple(points), seconds=40.0)


def test_a_row_is_read_back_from_json() -> None:
    assert Row.from_json(json.loads(json.dumps(asdict(row())))) == row()


def test_the_seconds_of_an_interrupted_training_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 13.0, 2.0, 6.0])
    monkeypatch.setattr("prefrm.bench.kept.time.process_time", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), spending(tmp_path):
        raise KeyboardInterrupt
    with spending(tmp_path):
        pass
    assert seconds_spent(tmp_path) == 7.0


def test_an_interval_is_students() -> None:
    # Mean 2, standard error 1 / sqrt(3); the quantile of two degrees of freedom is 4.3027.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high - 2 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)
    assert not interval.excludes_zero and mean_interval([1.0, 1.1, 1.2]).excludes_zero
    assert math.isnan(mean_interval([1.0]).low) and not mean_interval([1.0]).excludes_zero


def test_rewards_are_compared_within_a_seed() -> None:
    rows = [row(oracle=(0.5, 0.4)), row("ensemble", oracle=(0.5, 0.7)), row("ensemble", seed=1)]
    assert paired(rows, "ensemble", "scalar utility", "oracle") == [pytest.approx(0.3)]
    assert paired(rows, "ensemble", "scalar utility", "gap") == [pytest.approx(0.0)]


def test_the_oracle_turns_where_the_mean_curve_is_highest() -> None:
    turned = turn([row(oracle=(0.5, 0.6, 0.4)), row(seed=1, oracle=(0.4, 0.7, 0.4))])
    assert turned.iteration == 4 and turned.hacked
    assert turned.oracle == pytest.approx(-0.25) and turned.judge == pytest.approx(0.1)
    assert not turn([row(oracle=(0.5, 0.6, 0.7))]).hacked


@pytest.fixture
def sheets(tmp_path: Path) -> dict[str, Path]:
    folders = {cell.name: tmp_path / cell.name for cell in FULL.cells}
    for folder in folders.values():
        folder.mkdir()
        for n in (0, 4, 8):
            Image.new("RGB", (4, 4), (n, 0, 0)).save(folder / f"iteration-{n:05d}.png")
    return folders


JUDGE_ROWS = [JudgeRow(name="scalar", accuracy=0.8, low=0.7, high=0.9, calibration="temperature 0.1")]
LIKENESS = {"scalar utility": 1.0, "scalar win rate": 0.99}


def test_the_page_says_how_much_of_the_study_it_has(tmp_path: Path, sheets: dict[str, Path]) -> None:
    rows = [
        *(row(seed=seed, oracle=(0.5, 0.6, 0.2 + 0.01 * seed)) for seed in (0, 1, 2)),
        *(row("scalar win rate", seed=seed, oracle=(0.5, 0.6, 0.6 + 0.02 * seed)) for seed in (0, 1, 2)),
    ]
    (tmp_path / "docs" / "hacking").mkdir(parents=True)
    (tmp_path / "docs" / "hacking" / "notes.md").write_text("Written by a person.")
    write_hacking_report(rows, JUDGE_ROWS, FULL, tmp_path / "docs", likeness=LIKENESS, sheets=sheets)
    page = (tmp_path / "docs" / "hacking.md").read_text()
    assert "has 6 of these 45 trainings" in page and "Written by a person." in page
    assert "| scalar win rate - scalar utility |     3 |" in page
    assert "- by the oracle: supported, +0.410" in page and "- by the gap: not decided" in page
    assert "`flow_grpo` optim.lr 0.001, advantage.scale group, rollout.even_grid true" in page
    # The one that fell most, as it was before its training and at its end.
    assert "`seed0-nft-scalar-utility`" in page
    pictures = tmp_path / "docs" / "hacking"
    with Image.open(pictures / "before.png") as before, Image.open(pictures / "after.png") as after:
        assert before.getpixel((0, 0)) == (0, 0, 0) and after.getpixel((0, 0)) == (8, 0, 0)
    assert (pictures / "curves.png").stat().st_size > 1000
    facts = json.loads((tmp_path / "docs" / "hacking.json").read_text())
    assert facts["cells"] == 45 and [Row.from_json(one) for one in facts["rows"]] == rows


def test_a_page_of_one_training_has_no_intervals(tmp_path: Path, sheets: dict[str, Path]) -> None:
    write_hacking_report(
        [row(oracle=(0.5, 0.6, 0.7))], JUDGE_ROWS, QUICK, tmp_path, likeness=LIKENESS, sheets=sheets
    )
    page = (tmp_path / "hacking.md").read_text()
    # Rewards that the study lacks are not described.
    assert "**scalar utility**" in page and "**verdict win rate**" in page and "ensemble" not in page
    assert "There are no pairs yet." in page and "What hacking looks like" not in page and "nan" not in page
    assert "test of the claim" not in page


@pytest.mark.slow
def test_a_study_is_done_for_real_and_never_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    with pytest.raises(BenchError, match="no training of the study is done"):
        report_hacking(TINY, runs, docs)
    (done,) = bench_hacking(TINY, runs, docs)
    assert [point.iteration for point in done.points] == [0, 1, 2]
    assert done.points[0].judge == pytest.approx(0.5) == done.points[0].second
    assert all(0 <= point.oracle <= 1 and point.diversity > 0 for point in done.points)
    assert "has 1 of these 1 trainings" in (docs / "hacking.md").read_text()
    assert capsys.readouterr().out.count("seed0-nft-scalar-utility: ") == 1
    assert bench_hacking(TINY, runs, docs) == [done] == report_hacking(TINY, runs, docs)
    assert "seed0-nft-scalar-utility: " not in capsys.readouterr().out
    # A row of another budget is not taken for it.
    other: Study = replace(TINY, lr={"nft": 1e-5})
    with pytest.raises(BenchError, match="no training of the study is done"):
        report_hacking(other, runs, docs)
